package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

// TestOptionsReachJobAndAgent: what a user says to sbatch, srun and salloc is in the job's environment, also where --export keeps the
// submitter's away, and --gleaner is in the claims of its steps.
func TestOptionsReachJobAndAgent(t *testing.T) {
	c := theCluster(t, "gate")
	stopped(t, c, "agentd")
	node := c.NodeNames()[0]
	options := []string{"-w", node, "-n1", "--gleaner=no", "--gleaner-executors=3", "--gleaner-mem=200M"}
	want := []string{"GLEANER_EXECUTORS=3", "GLEANER_MEM_PER_EXECUTOR=200M", "GLEANER_SHARE=no"}
	const show = "env | grep -E '^GLEANER_(EX|ME|SH)' | sort"
	ways := map[string]func(t *testing.T) string{
		"srun": func(t *testing.T) string { return srun(t, c, append(options, "-Q", "sh", "-c", show)...) },
		"salloc": func(t *testing.T) string {
			return output(t, c, "salloc", append(options, "-Q", "srun", "-Q", "sh", "-c", show)...)
		},
		"salloc itself": func(t *testing.T) string { return output(t, c, "salloc", append(options, "-Q", "sh", "-c", show)...) },
		"sbatch": func(t *testing.T) string {
			j := sbatch(t, c, show, options...)
			j.wait("COMPLETED")
			return j.text()
		},
		"sbatch with nothing exported": func(t *testing.T) string {
			j := sbatch(t, c, show, append(options, "--export=NONE")...)
			j.wait("COMPLETED")
			return j.text()
		},
		"step of a batch job": func(t *testing.T) string {
			j := sbatch(t, c, "srun sh -c \""+show+"\"", options...)
			j.wait("COMPLETED")
			return j.text()
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			agent := pretend(t, c, node, temper["done"])
			if got := strings.Fields(way(t)); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("the job's environment has %q, want %q", got, want)
			}
			said := 0
			for _, claim := range agent.of(gate.Claim) {
				if claim.Flags&gate.FlagShareNo != 0 {
					said++
				} else if claim.Step != 0xfffffffc { // the extern step comes first and may not know yet
					t.Errorf("claim %+v does not say --gleaner=no", claim)
				}
			}
			if said == 0 && name != "salloc itself" {
				t.Error("no claim says --gleaner=no")
			}
		})
	}
}

// TestOptionsAreCheckedWhereTheyAreGiven: a wrong value is refused by the command with a message, and no job is made.
func TestOptionsAreCheckedWhereTheyAreGiven(t *testing.T) {
	c := theCluster(t, "gate")
	for option, want := range map[string]string{
		"--gleaner=maybe":            "want yes or no",
		"--gleaner-executors=0":      "want a number from 1 to 4096",
		"--gleaner-mem=much":         "want a size such as 512M",
		"--gleaner-mem=1G;rm -rf ..": "want a size such as 512M",
	} {
		for _, command := range [][]string{{"srun", option, "true"}, {"salloc", option, "true"}, {"sbatch", option, "--wrap", "true"}} {
			said, err := try(c, command[0], command[1:]...)
			if err == nil || !strings.Contains(said, want) {
				t.Errorf("%v: %v, %q; want it refused with %q", command, err, said, want)
			}
		}
	}
	if left := output(t, c, "squeue", "-h"); left != "" {
		t.Errorf("jobs were made: %s", left)
	}
}

// TestMapTakesTheJobsOptions: gleaner map in a job has the executors that its job asked Slurm for.
func TestMapTakesTheJobsOptions(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 40)
	j := sbatch(t, c, "gleaner map "+function(t, "slow")+" "+w.inputsGlob()+" --out "+filepath.Join(w.dir, "{stem}.out")+" --summary "+w.summaryFile(),
		"-n1", "--mem=64", "--gleaner-executors=3", "--gleaner-mem=150M")
	j.wait("COMPLETED")
	w.right(t)
	leases := output(t, c, "gleaner", "leases", "--all", "--output", "csv")
	found := false
	for line := range strings.Lines(leases) {
		f := strings.Split(line, ",")
		if len(f) > 11 && f[2] == strconv.Itoa(j.id) {
			found = f[9] == "3" && f[11] == strconv.Itoa(150<<20)
		}
	}
	if !found {
		t.Errorf("no lease of 3 executors with 150 MiB each for job %d:\n%s", j.id, leases)
	}
	nothingLeft(t, c)
}
