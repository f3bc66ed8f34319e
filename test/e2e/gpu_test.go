package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestGPULease: a function sees the GPU of its lease and no other, more than a node has is denied, and a job takes its GPUs back.
func TestGPULease(t *testing.T) {
	c := theCluster(t, whole...)
	gpu := func(n int) string { return fmt.Sprintf("/dev/gleaner-%s-gpu%d", c.Name, n) }
	for file, want := range map[string]string{
		gpu(1): "No such device or address", // it is there, and no driver behind it
		gpu(0): "No such file or directory",
	} {
		input, err := os.CreateTemp(c.Files(), "gpu")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(input.Name())
		_, err = input.WriteString(file)
		if e := input.Close(); err != nil || e != nil {
			t.Fatal(err, e)
		}
		if said := output(t, c, "gleaner", "invoke", function(t, "files"), input.Name(), "--gpus-per-executor", "1"); !strings.HasSuffix(said, want) {
			t.Errorf("%s: %q, want %q", file, said, want)
		}
	}
	if said, err := try(c, "gleaner", "invoke", function(t, "files"), "--gpus-per-executor", "3"); err == nil || !strings.Contains(said, "no node could ever hold this") {
		t.Errorf("three GPUs: %q, %v", said, err)
	}

	running := start(t, c, "gleaner", "invoke", function(t, "idle"), "--gpus-per-executor", "2")
	node := hosts(t, c, 1)[0]
	sbatch(t, c, witness(t, c)+" --patience 10s", "-n1", "-c1", "--gres=gpu:2", "-w", node).wait("COMPLETED")
	eventually(t, 20*time.Second, "the function runs elsewhere", func() bool {
		return !slices.Contains(hosts(t, c, 1), node)
	})
	if err := running.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = running.wait(t, 20*time.Second)
	nothingLeft(t, c)
}
