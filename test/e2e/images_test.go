package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/images"
	api "github.com/gleaner-hpc/gleaner/api/images"
	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// depot is a Podman of the test's own with a registry and the nodes' images helpers.
type depot struct {
	c      *cluster.Cluster
	dir    string
	podman string
	port   int
	env    []string
}

// newDepot starts all that images need, or skips with what is missing.
func newDepot(t *testing.T, c *cluster.Cluster) *depot {
	t.Helper()
	for _, program := range []string{"podman", "busybox", "docker-registry"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ", err)
		}
	}
	helper := filepath.Join(c.Build, "libexec/gleaner/images")
	if !exists(helper) {
		t.Skip("the images helper is not built: its modules cannot be had here")
	}
	dir, err := os.MkdirTemp("/var/tmp", "gleaner-images-")
	if err != nil {
		t.Fatal(err)
	}
	d := &depot{c: c, dir: dir, podman: "unix://" + filepath.Join(dir, "podman.sock")}
	t.Cleanup(func() {
		mounts, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(mounts)) {
			if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir) {
				_ = syscall.Unmount(at, syscall.MNT_DETACH)
			}
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.port = freePort(t)
	for name, text := range map[string]string{
		"storage.conf":    fmt.Sprintf("[storage]\ndriver = \"overlay\"\nrunroot = %q\ngraphroot = %q\n", filepath.Join(dir, "run"), filepath.Join(dir, "store")),
		"registries.conf": fmt.Sprintf("[[registry]]\nlocation = \"127.0.0.1:%d\"\ninsecure = true\n", d.port),
		"policy.json":     `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"registry.yml": fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:%d\"}\n",
			filepath.Join(dir, "registry"), d.port),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"), "CONTAINERS_REGISTRIES_CONF="+filepath.Join(dir, "registries.conf"), "TMPDIR="+dir)
	d.daemon(t, "podman", "system", "service", "-t", "0", d.podman)
	d.daemon(t, "docker-registry", "serve", filepath.Join(dir, "registry.yml"))
	eventually(t, 30*time.Second, "Podman listens", func() bool { return exists(filepath.Join(dir, "podman.sock")) })
	for _, node := range c.NodeNames() {
		info, err := os.Stat(c.LaunchSocket(node))
		if err != nil {
			t.Fatal(err)
		}
		agent := info.Sys().(*syscall.Stat_t).Uid
		d.daemon(t, helper, "--socket", c.ImagesSocket(node), "--agent-uid", strconv.Itoa(int(agent)), "--podman", d.podman, "--run-dir", c.RunDir(node),
			"--worker", filepath.Join(c.Build, "libexec/gleaner/worker"), "--spool", dir, "--idle", "1s")
		eventually(t, 30*time.Second, "the helper listens", func() bool { return exists(c.ImagesSocket(node)) })
		t.Cleanup(func() { d.putAway(t, node) })
	}
	return d
}

// putAway waits until nothing is mounted: no executor is left, and the helpers have been idle. It runs before they are ended.
func (d *depot) putAway(t *testing.T, node string) {
	eventually(t, 30*time.Second, "no image is mounted", func() bool {
		mounts, _ := os.ReadFile("/proc/self/mounts")
		return !strings.Contains(string(mounts), filepath.Join(d.c.RunDir(node), "images")+"/")
	})
	_ = os.Remove(d.c.ImagesSocket(node))
	_ = os.RemoveAll(filepath.Join(d.c.RunDir(node), "images"))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// daemon runs a program until the test ends.
func (d *depot) daemon(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	said := &strings.Builder{}
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", filepath.Base(name), said)
		}
	})
}

func (d *depot) run(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "podman", append([]string{"--url", d.podman}, args...)...)
	cmd.Env = d.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("podman %v: %v: %s", args, err, out)
	}
}

// tarball makes a root file system of the host's C library and a marker, and returns its path.
func (d *depot) tarball(t *testing.T, name, marker string, libc bool) string {
	t.Helper()
	root, file := filepath.Join(d.dir, name), filepath.Join(d.dir, name+".tar")
	script := `mkdir -p "$1/bin" "$1/tmp" && cp "$(command -v busybox)" "$1/bin/" && printf %s "$3" >"$1/marker"`
	if libc {
		script += ` && for f in $(ldd "$4" | grep -o '/[^ ]*'); do mkdir -p "$1$(dirname "$f")" && cp -L "$f" "$1$f"; done`
	}
	script += ` && tar -C "$1" -cf "$2" .`
	worker := filepath.Join(d.c.Build, "libexec/gleaner/worker")
	if out, err := exec.Command("bash", "-c", script, "-", root, file, marker, worker).CombinedOutput(); err != nil {
		t.Fatalf("make a root file system: %v: %s", err, out)
	}
	return file
}

// TestImages: functions run in images by name, by reference and from archives, as their owner and read-only; what cannot be used is named.
func TestImages(t *testing.T) {
	c := theCluster(t, whole...)
	d := newDepot(t, c)
	lib := filepath.Join(d.dir, "inside.so")
	if out, err := exec.Command("gcc", "-O1", "-fPIC", "-shared", "-o", lib, "testdata/inside.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	plain, named := d.tarball(t, "plain", "a tarball", true), d.tarball(t, "named", "a name", true)
	remote, musl := d.tarball(t, "remote", "a reference", true), d.tarball(t, "musl", "no libc", false)
	reference, archive := fmt.Sprintf("127.0.0.1:%d/tools/marker:1", d.port), filepath.Join(d.dir, "archive.tar")
	d.run(t, "import", "-q", named, "localhost/marker:1")
	d.run(t, "save", "-q", "--format", "oci-archive", "-o", archive, "localhost/marker:1")
	d.run(t, "import", "-q", remote, reference)
	d.run(t, "push", "-q", "--tls-verify=false", reference)
	d.run(t, "rmi", reference)
	secret, cut := filepath.Join(d.dir, "secret.tar"), filepath.Join(d.dir, "cut.tar")
	whole, err := os.ReadFile(archive)
	err = errors.Join(err, os.Chmod(archive, 0o644), os.WriteFile(secret, whole, 0o600), os.WriteFile(cut, whole[:len(whole)/2], 0o644))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, image, result, failure string }{
		{name: "none", result: "no marker"},
		{name: "name", image: "localhost/marker:1", result: "a name, read-only, alone"},
		{name: "archive", image: archive, result: "a name, read-only, alone"},
		{name: "tarball", image: plain, result: "a tarball, read-only, alone"},
		{name: "reference", image: reference, result: "a reference, read-only, alone"},
		{name: "unknown", image: fmt.Sprintf("127.0.0.1:%d/tools/nothing:1", d.port), failure: "no such image"},
		{name: "cut short", image: cut, failure: "corrupt"},
		{name: "somebody else's archive", image: secret, failure: "permission denied"},
		{name: "no GNU C library", image: musl, failure: "need a GNU C library of version 2."},
		{name: "another transport", image: "dir:/etc", failure: "no such image"},
	} {
		t.Run(row.name, func(t *testing.T) { d.check(t, lib, row.image, row.result, row.failure) })
	}
	t.Run("second use", d.second)
}

func (d *depot) check(t *testing.T, lib, image, result, failure string) {
	w := newWork(t, d.c, 1)
	args := w.args(t, lib+":marker", "--executors", "1")
	if image != "" {
		args = append(args, "--image", image)
	}
	run := start(t, d.c, "gleaner", args...)
	err := run.wait(t, time.Minute)
	if failure != "" {
		if err == nil || !strings.Contains(run.out.String(), failure) {
			t.Errorf("%v; want a failure that says %q\n%s", err, failure, run.out.String())
		}
		return
	}
	got, _ := os.ReadFile(filepath.Join(w.dir, "in-000.out"))
	if string(got) != result {
		t.Errorf("%v, result %q; want %q\n%s", err, got, result, run.out.String())
	}
	var listed struct {
		Leases []struct {
			Lease  uint64
			Image  string
			Digest string `json:"image_digest"`
		}
	}
	said := output(t, d.c, "gleaner", "leases", "--all", "--output", "json")
	if err := json.Unmarshal([]byte(said), &listed); err != nil {
		t.Fatalf("%s: %v", said, err)
	}
	lease := w.summary(t).Lease
	for _, l := range listed.Leases {
		if l.Lease == lease && (l.Image != image || strings.HasPrefix(l.Digest, "sha256:") != (image != "")) {
			t.Errorf("the lease's record says image %q, digest %q", l.Image, l.Digest)
		}
	}
}

// second measures what an image costs that is on the node.
func (d *depot) second(t *testing.T) {
	client := images.Client{Path: d.c.ImagesSocket(d.c.NodeNames()[0])}
	ask := api.Request{Image: "localhost/marker:1", Holder: "probe"}
	if _, err := client.Take(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for range 20 {
		begun := time.Now()
		if _, err := client.Take(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begun))
	}
	t.Logf("second use of an image: %v", best.Round(time.Microsecond))
	d.run(t, "image", "prune", "-a", "-f")
	if _, err := client.Take(t.Context(), ask); err != nil {
		t.Errorf("pruned while it is held: %v", err)
	}
	d.run(t, "image", "exists", "localhost/marker:1")
	if err := client.Drop(t.Context(), "probe"); err != nil {
		t.Error(err)
	}
}
