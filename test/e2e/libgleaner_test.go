package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

const examples = "../../contrib/examples/"

// compiled builds a program against the library of this build in a folder that every node sees, and returns its path.
func compiled(t *testing.T, c *cluster.Cluster, name string, command ...string) string {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skipf("needs %s; apt-get install it", command[0])
	}
	dir, err := os.MkdirTemp(c.Dir, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range command {
		command[n] = strings.NewReplacer("DIR", dir, "BUILD", c.Build).Replace(command[n])
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PKG_CONFIG_PATH="+filepath.Join(c.Build, "lib", "pkgconfig"), "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return filepath.Join(dir, name)
}

// blackScholes is the example, built by its own Makefile.
func blackScholes(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	return compiled(t, c, "blackscholes", "make", "-s", "-f", mustAbs(t, examples+"blackscholes-openmp/Makefile"), "-C", "DIR",
		"VPATH="+mustAbs(t, examples+"blackscholes-openmp"), "CFLAGS=-O2 -Wall -Wextra -Werror -Wl,-rpath,BUILD/lib")
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func pricing(c *cluster.Cluster) string {
	return filepath.Join(c.Build, "lib", "gleaner", "functions", "blackscholes.so")
}

// Half of an OpenMP loop runs on executors; an exclusive job takes a node away in the middle; every price is that of the serial run.
func TestOpenMPLoopSurvivesAnEviction(t *testing.T) {
	c := theCluster(t, whole...)
	program := blackScholes(t, c)
	m := start(t, c, "gleaner", "run", "--function", pricing(c), "--executors", "4", "--mem-per-executor", "128M", "--buffer", "2M", "--", program, "400000", "50", "1000000")
	nodes := hosts(t, c, 4)
	j := sbatch(t, c, witness(t, c), "--exclusive", "-N1", "-w", nodes[0])
	j.wait("COMPLETED")
	ownerFirst(t, j)
	if err := m.cmd.Process.Signal(os.Interrupt); err != nil { // the example ends after its pass
		t.Fatal(err)
	}
	if err := m.wait(t, time.Minute); err != nil {
		t.Fatalf("blackscholes: %v\n%s", err, m.out.String())
	}
	t.Logf("\n%s", m.out.String())
	if !strings.Contains(m.out.String(), "; 0 prices differ") {
		t.Errorf("prices differ from the serial run:\n%s", m.out.String())
	}
	found := regexp.MustCompile(`lease (\d+): 4 executors`).FindStringSubmatch(m.out.String())
	if found == nil {
		t.Fatalf("no lease with four executors:\n%s", m.out.String())
	}
	if evictions, state := leaseEnd(t, c, found[1]); evictions == 0 || state != "ENDED" {
		t.Errorf("lease %s: %s with %d evictions, want it ended with some", found[1], state, evictions)
	}
	if told := output(t, c, "gleaner", "explain", found[1]); !strings.Contains(told, "job "+strconv.Itoa(j.id)) {
		t.Errorf("explain does not name job %d:\n%s", j.id, told)
	}
	nothingLeft(t, c)
}

func leaseEnd(t *testing.T, c *cluster.Cluster, id string) (evictions int, state string) {
	t.Helper()
	var listing struct {
		Leases []struct {
			Lease     uint64
			State     string
			Evictions int
		}
	}
	text := output(t, c, "gleaner", "leases", "--all", "--output", "json")
	if err := json.Unmarshal([]byte(text), &listing); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, l := range listing.Leases {
		if strconv.FormatUint(l.Lease, 10) == id {
			return l.Evictions, strings.ToUpper(l.State)
		}
	}
	t.Fatalf("no lease %s in %s", id, text)
	return 0, ""
}

// gleaner sbatch --function makes the lease of the gleaner run inside; both end with the job.
func TestSbatchWithAFunction(t *testing.T) {
	c := theCluster(t, whole...)
	program := blackScholes(t, c)
	j := &job{out: filepath.Join(filepath.Dir(program), "out"), c: c, test: t}
	script := filepath.Join(filepath.Dir(program), "job.sh")
	text := "#!/bin/bash\n#SBATCH -n1 -c2 --mem=300\n#GLEANER --executors=2 --mem-per-executor=128M\nexec gleaner run -- " + program + " 100000\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, c, "gleaner", "sbatch", "--parsable", "--wait", "-o", j.out, "--function", pricing(c), script)
	if !strings.Contains(j.text(), "2 executors") || !strings.Contains(j.text(), "; 0 prices differ") {
		t.Errorf("the job said:\n%s", j.text())
	}
	nothingLeft(t, c)
}

// gleaner run has its command's exit status, hands signals on, and leaves neither lease nor folder behind.
func TestRunIsTransparent(t *testing.T) {
	c := theCluster(t, whole...)
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137, `test -S "$GLEANER_LEASE" && test "$(stat -c %a "$GLEANER_LEASE")" = 600`: 0} {
		m := start(t, c, "gleaner", "run", "--function", function(t, "reverse"), "--mem-per-executor", "64M", "--", "sh", "-c", script)
		_ = m.wait(t, 20*time.Second)
		if got := m.cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: exit status %d, want %d\n%s", script, got, want, m.out.String())
		}
	}
	ready := filepath.Join(c.Dir, "run-is-ready")
	m := start(t, c, "gleaner", "run", "--function", function(t, "reverse"), "--mem-per-executor", "64M", "--", "sh", "-c",
		"trap 'exit 3' TERM; touch "+ready+"; while :; do sleep 0.1; done")
	eventually(t, 10*time.Second, "the command runs", func() bool { return exists(ready) })
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = m.wait(t, 20*time.Second)
	if got := m.cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("after SIGTERM exit status %d, want the command's\n%s", got, m.out.String())
	}
	nothingLeft(t, c)
	if left := output(t, c, "gleaner", "leases", "--output", "csv"); strings.Count(left, "\n") > 0 {
		t.Errorf("leases are left:\n%s", left)
	}
}

func TestHelloFromCxxAndFortran(t *testing.T) {
	c := theCluster(t, whole...)
	tests := map[string]struct {
		command []string
		want    string
	}{
		"C++":     {[]string{"g++", "-Wall", "-Wextra", "-Werror", "-IBUILD/include", mustAbs(t, examples+"hello/hello.cpp"), "-LBUILD/lib", "-lgleaner", "-Wl,-rpath,BUILD/lib", "-o", "DIR/hello"}, "++C morf olleh"},
		"Fortran": {[]string{"gfortran", "-JDIR", "BUILD/include/gleaner.f90", mustAbs(t, examples+"hello/hello.f90"), "-LBUILD/lib", "-lgleaner", "-Wl,-rpath,BUILD/lib", "-o", "DIR/hello"}, "nartroF morf olleh"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			program := compiled(t, c, "hello", test.command...)
			if said := output(t, c, "gleaner", "run", "--function", function(t, "reverse"), "--mem-per-executor", "64M", "--", program); said != test.want {
				t.Errorf("said %q, want %q", said, test.want)
			}
		})
	}
	nothingLeft(t, c)
}
