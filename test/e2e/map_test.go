package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

func TestMapEndsRightAndLeavesNothing(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 40)
	output(t, c, "gleaner", w.args(t, function(t, "reverse"), "--executors", "4")...)
	w.right(t)
	if s := w.summary(t); s.OK != 40 || s.Failed+s.Left+s.Evictions != 0 {
		t.Errorf("summary %+v", s)
	}
	nothingLeft(t, c)
}

func TestMapResumesWithWhatIsMissing(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 12)
	output(t, c, "gleaner", w.args(t, function(t, "reverse"))...)
	for _, n := range []string{"003", "007"} {
		if err := os.Remove(filepath.Join(w.dir, "in-"+n+".out")); err != nil {
			t.Fatal(err)
		}
	}
	output(t, c, "gleaner", w.args(t, function(t, "reverse"))...)
	w.right(t)
	if s := w.summary(t); s.OK != 2 || s.Skipped != 10 {
		t.Errorf("summary %+v, want 2 run and 10 skipped", s)
	}
	nothingLeft(t, c)
}

// An exclusive job comes to two nodes on which executors run: it finds nothing of ours, and every task is right all the same.
func TestEvictedTasksRunAgainElsewhere(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 150)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "8")...)
	nodes := hosts(t, c, 8)
	if len(nodes) < 2 {
		t.Fatalf("8 executors sit on %v alone; they should be spread", nodes)
	}
	j := sbatch(t, c, witness(t, c)+"\nsleep 1", "--exclusive", "-N2", "-w", nodes[0]+","+nodes[1])
	j.wait("COMPLETED")
	ownerFirst(t, j)
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	s := w.summary(t)
	if s.OK != 150 || s.Failed != 0 || s.Evictions < 4 {
		t.Errorf("summary %+v, want 150 right and at least 4 evictions", s)
	}
	nothingLeft(t, c)
	told := output(t, c, "gleaner", "explain", strconv.FormatUint(s.Lease, 10))
	if want := fmt.Sprintf("job %d", j.id); !strings.Contains(told, want) {
		t.Errorf("explain does not name %s:\n%s", want, told)
	}
}

// ownerFirst checks what the witness printed as the first process of a job.
func ownerFirst(t *testing.T, j *job) {
	t.Helper()
	line, _, _ := strings.Cut(j.text(), "\n")
	var finding struct {
		OwnerFirst *bool `json:"owner_first"`
	}
	if err := json.Unmarshal([]byte(line), &finding); err != nil || finding.OwnerFirst == nil {
		t.Fatalf("job %d: the witness said %q: %v", j.id, j.text(), err)
	}
	if !*finding.OwnerFirst {
		t.Errorf("job %d: something harvested held what is the job's: %s", j.id, j.text())
	}
}

// A job that leaves room for the executors evicts none of them.
func TestJobThatLeavesRoomEvictsNobody(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 40)
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	nodes := hosts(t, c, 4)
	j := sbatch(t, c, witness(t, c), "-n1", "-c2", "--mem=200", "-w", nodes[0])
	j.wait("COMPLETED")
	ownerFirst(t, j)
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	w.right(t)
	if s := w.summary(t); s.Evictions != 0 {
		t.Errorf("%d evictions for a job that had room beside the executors", s.Evictions)
	}
}

func TestFunctionsFailByName(t *testing.T) {
	c := theCluster(t, whole...)
	tests := map[string]struct {
		symbol string
		more   []string
		want   string
	}{
		"crash":            {"crash", nil, "segmentation fault"},
		"deadline":         {"forever", []string{"--timeout", "300ms"}, "deadline"},
		"exit":             {"leave", nil, "exit"},
		"result too large": {"flood", nil, "too large"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWork(t, c, 2)
			began := time.Now()
			out, err := try(c, "gleaner", w.args(t, function(t, test.symbol), append(test.more, "--executors", "1")...)...)
			if err == nil {
				t.Fatalf("it succeeded:\n%s", out)
			}
			s := w.summary(t)
			if s.Failed != 2 || s.OK != 0 {
				t.Errorf("summary %+v, want 2 failed", s)
			}
			for _, failure := range s.Failures {
				if !strings.Contains(failure.Error, test.want) {
					t.Errorf("%s failed with %q, want …%s…", failure.Input, failure.Error, test.want)
				}
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	nothingLeft(t, c)
}

// A function that crashes for some inputs costs only those: the lease lives on.
func TestCrashCostsItsOwnTaskOnly(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 20)
	bad := filepath.Join(w.dir, "in-005.txt")
	if err := os.WriteFile(bad, []byte("x is not liked"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := try(c, "gleaner", w.args(t, function(t, "picky"), "--executors", "2")...)
	if err == nil {
		t.Fatalf("it succeeded:\n%s", out)
	}
	s := w.summary(t)
	if s.OK != 19 || s.Failed != 1 || len(s.Failures) != 1 || s.Failures[0].Input != bad || !strings.Contains(s.Failures[0].Error, "aborted") {
		t.Errorf("summary %+v, want one failure by abort", s)
	}
	told := output(t, c, "gleaner", "explain", s.Failures[0].Task)
	if !strings.Contains(told, "aborted") {
		t.Errorf("explain %s does not say why:\n%s", s.Failures[0].Task, told)
	}
	nothingLeft(t, c)
}

func TestUnknownSymbolIsFoundBeforeAnythingRuns(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 1)
	out, err := try(c, "gleaner", w.args(t, function(t, "nosuch"))...)
	if err == nil || !strings.Contains(out, "nosuch") {
		t.Errorf("got %v: %s", err, out)
	}
}

// Functions run as the user who asks, and neither root nor the user can write to the system from the sandbox.
func TestFunctionsRunAsTheirOwner(t *testing.T) {
	c := theCluster(t, whole...)
	const nobody = "65534"
	for name, as := range map[string][]string{
		"user": {"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"},
		"root": {"env"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp(c.Dir, "who")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			input, result := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			if err := os.WriteFile(input, []byte("?"), 0o644); err != nil {
				t.Fatal(err)
			}
			gleaner := filepath.Join(c.Build, "bin", "gleaner")
			output(t, c, as[0], append(as[1:], gleaner, "map", function(t, "whoami"), input, "--out", result)...)
			got, err := os.ReadFile(result)
			if err != nil || len(got) != 12 {
				t.Fatalf("result %v, %v", got, err)
			}
			uid, gid, writable := binary.LittleEndian.Uint32(got), binary.LittleEndian.Uint32(got[4:]), got[8]
			if uid != 65534 || gid != 65534 || writable != 0 {
				t.Errorf("runs as uid %d gid %d, /usr writable %d; want 65534, 65534, 0", uid, gid, writable)
			}
		})
	}
	nothingLeft(t, c)
}

// The lease of gleaner sbatch ends with its job, also by scancel.
func TestLeaseEndsWithItsJob(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 200)
	script := filepath.Join(w.dir, "job.sh")
	text := "#!/bin/bash\n#SBATCH -J functions -n1 --mem=64\n#GLEANER --executors 4 --mem-per-executor 128M\n" +
		"gleaner map " + function(t, "slow") + " " + w.inputsGlob() + " --out " + filepath.Join(w.dir, "{stem}.out") + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	said := output(t, c, "gleaner", "sbatch", "--parsable", "-o", filepath.Join(w.dir, "job.log"), script)
	id, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("gleaner sbatch said %q", said)
	}
	j := &job{id: id, out: filepath.Join(w.dir, "job.log"), c: c, test: t}
	t.Cleanup(j.cancel)
	hosts(t, c, 4)
	leases := output(t, c, "gleaner", "leases")
	if !strings.Contains(leases, said) {
		t.Errorf("gleaner leases does not show job %s:\n%s", said, leases)
	}
	output(t, c, "scancel", said)
	began := time.Now()
	nothingLeft(t, c)
	t.Logf("nothing left %v after scancel", time.Since(began))
}

func TestSbatchWrapperRunsTheWholeJob(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 30)
	script := filepath.Join(w.dir, "job.sh")
	text := "#!/bin/bash\n#SBATCH -n1 --mem=64\nset -e\ngleaner map \"$1\" " + w.inputsGlob() + " --out " + filepath.Join(w.dir, "{stem}.out") +
		" --summary " + w.summaryFile() + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	said := output(t, c, "gleaner", "sbatch", "--parsable", "--wait", "-o", filepath.Join(w.dir, "job.log"),
		"--executors", "4", "--mem-per-executor", "128M", script, function(t, "reverse"))
	if _, err := strconv.Atoi(said); err != nil {
		t.Errorf("gleaner sbatch said %q", said)
	}
	w.right(t)
}

func TestNodesAndReport(t *testing.T) {
	c := theCluster(t, whole...)
	w := newWork(t, c, 30)
	j := sbatch(t, c, "sleep 4", "-n1", "-c3", "--mem=500")
	j.wait("RUNNING")
	m := start(t, c, "gleaner", w.args(t, function(t, "slow"), "--executors", "4")...)
	hosts(t, c, 4)
	nodes := output(t, c, "gleaner", "nodes")
	for _, node := range c.NodeNames() {
		if !strings.Contains(nodes, node) {
			t.Errorf("gleaner nodes does not show %s:\n%s", node, nodes)
		}
	}
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("map: %v\n%s", err, m.out.String())
	}
	sumsUp(t, c)
	page := output(t, c, "gleaner", "report", "--output", "html")
	for _, bad := range []string{"<script", "src=\"http", "href=\"http", "@import", "url(http"} {
		if strings.Contains(page, bad) {
			t.Errorf("the HTML report has %s: it has to work without a network", bad)
		}
	}
	if text := output(t, c, "gleaner", "report"); !strings.Contains(strings.ToLower(text), "harvested") {
		t.Errorf("the text report does not say harvested:\n%s", text)
	}
}

// sumsUp checks that the slices of the report add up to the reported time, and that something was harvested.
func sumsUp(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	var r struct {
		Schema string           `json:"schema"`
		CPU    map[string]int64 `json:"cpu_ms"`
	}
	text := output(t, c, "gleaner", "report", "--output", "json")
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	sum := int64(0)
	for _, slice := range []string{"allocated", "harvested", "down", "planned_down", "planned", "idle"} {
		value, ok := r.CPU[slice]
		if !ok {
			t.Errorf("no slice %s in %v", slice, r.CPU)
		}
		sum += value
	}
	if sum != r.CPU["reported"] || r.CPU["harvested"] == 0 || r.CPU["allocated"] == 0 {
		t.Errorf("slices %v add up to %d", r.CPU, sum)
	}
}
