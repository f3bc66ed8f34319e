package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A zombie by the name of libcontainer's stage goes; another child's stays for whoever waits for it.
func TestFailedStartsLeaveNoZombies(t *testing.T) {
	if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/children"); err != nil {
		t.Skipf("this kernel does not list children: %v", err)
	}
	stage := exec.Command("sh", "-c", `printf 'runc:[1:CHILD]' > /proc/$$/comm`)
	other := exec.Command("true")
	for _, child := range []*exec.Cmd{stage, other} {
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for exists(filepath.Join("/proc", strconv.Itoa(stage.Process.Pid))) {
		if reapStages(); time.Now().After(deadline) {
			t.Fatal("the stage is still there")
		}
		time.Sleep(time.Millisecond)
	}
	if err := other.Wait(); err != nil {
		t.Errorf("the other child: %v", err)
	}
}
