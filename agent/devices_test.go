package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/agent/launch"
	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// TestGPUsThatCannotBeGiven: what no launcher gives is not offered from the start, what this one refuses not again, and both are said.
func TestGPUsThatCannotBeGiven(t *testing.T) {
	n := newNode(t)
	outside := filepath.Join(t.TempDir(), "gpu0")
	n.cfg.Devices = []string{outside, "/dev/null"}
	n.run()
	n.up <- true
	s := n.admits()
	if want := "1 of 2 GPUs not lent: " + outside + " is no device file below /dev"; s.GetTotal().GetGpus() != 1 || s.GetFree().GetGpus() != 1 || s.GetNote() != want {
		t.Errorf("state %v; want one GPU, and the note %q", s, want)
	}
	n.fake.Refuse(&launch.RefusedError{Verb: launcher.Start, Reason: "devices has to be of those below /dev that this launcher was told to allow"})
	q := start("7-1", 1, 64)
	q.Gpus = 1
	n.ask(q)
	withheld := n.broker.await(t, "state without GPUs, before the end", func(m *api.AgentMessage) bool {
		return m.GetState() != nil && m.GetState().GetTotal().GetGpus() == 0 || m.GetEnded() != nil
	}).GetState()
	if withheld.GetFree().GetGpus() != 0 || !strings.HasPrefix(withheld.GetNote(), "2 of 2 GPUs not lent: ") {
		t.Errorf("state %v", withheld)
	}
	if e := n.ended("7-1"); e.GetReason() != api.EndReason_REFUSED || !strings.Contains(e.GetDetail(), "told to allow") {
		t.Errorf("ended %v", e)
	}
	n.fake.Refuse(nil)
	n.up <- false
	n.up <- true // the launcher was restarted, perhaps with other options
	n.broker.await(t, "GPU offered again", func(m *api.AgentMessage) bool { return m.GetState().GetFree().GetGpus() == 1 })
}

// TestDeviceFiles: a GPU comes with what its driver needs beside it, where the node has that.
func TestDeviceFiles(t *testing.T) {
	has := func(paths ...string) func(string) error {
		return func(path string) error {
			if slices.Contains(paths, path) {
				return nil
			}
			return os.ErrNotExist
		}
	}
	node := has("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/kfd")
	for _, test := range []struct{ gpus, want []string }{
		{nil, nil},
		{[]string{"/dev/nvidia0", "/dev/nvidia3"}, []string{"/dev/nvidia0", "/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm"}},
		{[]string{"/dev/dri/renderD128"}, []string{"/dev/dri/renderD128", "/dev/kfd"}},
		{[]string{"/dev/gleaner-c1-gpu0"}, []string{"/dev/gleaner-c1-gpu0"}},
	} {
		if got := deviceFiles(test.gpus, node); !slices.Equal(got, test.want) {
			t.Errorf("%v comes with %v, want %v", test.gpus, got, test.want)
		}
	}
}
