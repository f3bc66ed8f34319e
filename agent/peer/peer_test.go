package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSandbox(t *testing.T) {
	tests := map[string]struct {
		text string
		want string
	}{
		"v2":               {"0::/gleaner/n1/7-1\n", "7-1"},
		"v2, sub-cgroup":   {"0::/gleaner/n1/7-1/worker\n", "7-1"},
		"v1":               {"9:cpu:/gleaner/n1/7-1\n8:name=systemd:/\n4:memory:/gleaner/n1/7-1\n0::/\n", "7-1"},
		"nested parent":    {"0::/system.slice/gleaner/n1/7-1\n", "7-1"},
		"another node":     {"0::/gleaner/n2/7-1\n", ""},
		"no parent":        {"0::/n1/7-1\n", ""},
		"the node itself":  {"0::/gleaner/n1\n", ""},
		"trailing slash":   {"0::/gleaner/n1/\n", ""},
		"contradictory":    {"9:cpu:/gleaner/n1/7-1\n4:memory:/gleaner/n1/7-2\n", ""},
		"a job's":          {"0::/system.slice/n1_slurmstepd.scope/job_4/step_0/user/task_0\n", ""},
		"malformed":        {"nothing\n::\n", ""},
		"empty":            {"", ""},
		"colon in a path":  {"0::/gleaner/n1/a:b\n", "a:b"},
		"node as its name": {"0::/gleaner/n1/n1\n", "n1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, ok := Sandbox(test.text, "n1"); got != test.want || ok != (test.want != "") {
				t.Errorf("got %q, %v; want %q", got, ok, test.want)
			}
		})
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "agent.sock")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	if _, err := Listen(path, 0o600); err == nil {
		t.Error("a second listener took a living socket")
	}
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close() // the probe of the second listener
		}
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	cred, err := Credentials(conn.(*net.UnixConn))
	if err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Geteuid() {
		t.Errorf("credentials %v, %v", cred, err)
	}
	_ = conn.Close()
	_ = l.Close()
	again, err := Listen(path, 0o666)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	_ = again.Close()
}

func FuzzSandbox(f *testing.F) {
	f.Add("9:cpu:/gleaner/n1/7-1\n", "n1")
	f.Fuzz(func(t *testing.T, text, node string) {
		if id, ok := Sandbox(text, node); ok && id == "" {
			t.Error("an empty id is no id")
		}
	})
}

func TestListenerHealsItsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	k, err := Keep(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	accept := func() {
		conn, err := k.AcceptUnix()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}
	dial := func() {
		t.Helper()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if err := <-accepted; err != nil {
			t.Fatal(err)
		}
	}
	go accept()
	dial()
	if healed, err := k.heal(); healed || err != nil {
		t.Fatalf("healed %v, %v with the socket in place", healed, err)
	}
	go accept() // waits in the old one while the new one is made
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if healed, err := k.heal(); !healed || err != nil {
		t.Fatalf("healed %v, %v without a socket", healed, err)
	}
	dial()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	go accept()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if healed, err := k.heal(); healed || err != nil {
		t.Errorf("healed %v, %v after close", healed, err)
	}
}
