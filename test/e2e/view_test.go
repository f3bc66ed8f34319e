package e2e

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// TestSourcesGiveOneView: slurmrestd and Slurm's commands tell the same of the same cluster, with jobs running and waiting on it.
func TestSourcesGiveOneView(t *testing.T) {
	c := theCluster(t, "slurmrestd")
	sbatch(t, c, "sleep 600", "-N2", "--ntasks-per-node=1", "--mem=64").wait("RUNNING")
	sbatch(t, c, "sleep 600", "-n1", "-c2", "--mem=32", "-t", "10").wait("RUNNING")
	sbatch(t, c, "sleep 600", "-N4", "--exclusive", "-J", "NodeList=x UserId=bob(77)")
	text := reader(t, slurmctld.Config{Source: slurmctld.Scontrol, SlurmConf: c.SlurmConf()})
	rest := reader(t, slurmctld.Config{Source: slurmctld.REST, URL: "unix:" + c.RestSocket()})
	var last string
	eventually(t, 20*time.Second, "both sources tell the same", func() bool {
		a, b := read(t, text), read(t, rest)
		last = cmp.Diff(steady(a), steady(b))
		return last == "" && len(a.Jobs) >= 3 && len(a.Nodes) == len(c.NodeNames())
	}, func() string { return last })
}

func reader(t *testing.T, cfg slurmctld.Config) *slurmctld.Reader {
	t.Helper()
	r, err := slurmctld.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, r *slurmctld.Reader) slurmctld.View {
	t.Helper()
	v, _, err := r.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return *v
}

// steady drops what moves between two looks: clocks, load and free memory, and what 22.05's slurmrestd does not tell.
func steady(v slurmctld.View) slurmctld.View {
	out := slurmctld.View{Jobs: v.Jobs}
	for _, n := range v.Nodes {
		n.FreeMiB, n.CPULoadHundreds, n.SpecMemoryMiB = 0, 0, 0
		out.Nodes = append(out.Nodes, n)
	}
	return out
}
