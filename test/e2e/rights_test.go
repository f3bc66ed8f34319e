package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// TestRights: on a node the launcher alone has privilege. Broker and agents are ordinary users without one capability, and nobody but the
// agent's user reaches the launcher, nor anybody from outside of a sandbox the executors' socket.
func TestRights(t *testing.T) {
	c := theCluster(t, "brokerd", "agentd", "launch")
	node := c.NodeNames()[0]
	for _, role := range []string{"brokerd", "agentd/" + node} {
		status := readStatus(t, c.PID(role))
		if status["Uid"] == "" || strings.HasPrefix(status["Uid"], "0 ") || strings.Contains(status["Uid"], " 0") {
			t.Errorf("%s runs as uid %s", role, status["Uid"])
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb"} {
			if status[set] != "0000000000000000" {
				t.Errorf("%s has capabilities: %s %s", role, set, status[set])
			}
		}
	}
	if status := readStatus(t, c.PID("launch/"+node)); !strings.HasPrefix(status["Uid"], "0 ") {
		t.Errorf("the launcher is uid %s", status["Uid"])
	}
	for path, mode := range map[string]os.FileMode{c.LaunchSocket(node): 0o600, c.AgentSocket(node): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}
	folder := strings.TrimSuffix(c.ExecutorSocket(node), "/sockets/executors.sock")
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%s, above the executors' socket, can be entered by others: %v, %v", folder, info.Mode(), err)
	}
}

func readStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		found[key] = strings.Join(strings.Fields(value), " ")
	}
	return found
}

// TestOwnFiles: functions see their owner's files where the lease asks for them and the node grants it, write only where that was asked for
// too, as nobody else, and open sockets only with --network.
func TestOwnFiles(t *testing.T) {
	c := theCluster(t, whole...)
	const me, other = 64330, 64331
	dir := filepath.Join(c.Files(), "me")
	for _, d := range []string{dir, filepath.Join(c.Files(), "other")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(d) })
	}
	for path, owner := range map[string]int{"me": me, "me/data": me, "other": other, "other/data": other} {
		path = filepath.Join(c.Files(), path)
		if filepath.Base(path) == "data" {
			if err := os.WriteFile(path, []byte("of "+fmt.Sprint(owner)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../other", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	// The checkout may lie where only root comes.
	cli, library := lent(t, c, filepath.Join(c.Build, "bin/gleaner")), lent(t, c, strings.TrimSuffix(function(t, "files"), ":files"))+":files"
	for name, test := range map[string]struct {
		input string
		flags []string
		want  string // the result
	}{
		"not asked for":     {input: dir + "/data", want: "No such file or directory"},
		"read":              {input: "/data/in/data", flags: []string{"--bind", dir + ":/data/in"}, want: "of 64330"},
		"written":           {input: "+/data/in/new", flags: []string{"--bind", dir + ":/data/in:rw"}, want: "written"},
		"read-only":         {input: "+/data/in/new", flags: []string{"--bind", dir + ":/data/in"}, want: "Read-only file system"},
		"another's":         {input: "/data/in/data", flags: []string{"--bind", filepath.Join(c.Files(), "other") + ":/data/in"}, want: "Permission denied"},
		"a link inside":     {input: "/data/in/link/data", flags: []string{"--bind", dir + ":/data/in"}, want: "No such file or directory"},
		"socket":            {input: "socket", want: "Operation not permitted"},
		"socket is granted": {input: "socket", flags: []string{"--network"}, want: "opened"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := as(c.Command(ctx, cli, append([]string{"invoke", library, "-"}, test.flags...)...), me, test.input)
			if err != nil || out != test.want {
				t.Errorf("%q, %v; want %q", out, err, test.want)
			}
		})
	}
}

// lent copies a file to where every user can run it.
func lent(t *testing.T, c *cluster.Cluster, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Files(), filepath.Base(file))
	if err := os.WriteFile(path, content, 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return path
}

// as runs a command as another user, with text for its standard input, and returns its standard output.
func as(cmd *exec.Cmd, uid uint32, text string) (string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Dir, cmd.Stdin = "/", strings.NewReader(text)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, problems.String())
	}
	return string(out), err
}
