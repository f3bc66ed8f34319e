package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// home is a user's folder with what the cases need, and one of somebody else's.
//
//	mine/        the user's, 0700: data, sub/deep, link -> ../other, sneak -> ../other/secret
//	other/       another user's, 0700, with secret
//	team/        root's, 0750 of the supplementary group, with shared
func home(t *testing.T) string {
	t.Helper()
	needSupport(t)
	dir, err := os.MkdirTemp("/var/tmp", "binds") // not below /tmp, which a sandbox has itself
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755))
	for _, d := range []string{"mine/sub", "other", "team"} {
		must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, f := range []string{"mine/data", "mine/sub/deep", "other/secret", "team/shared"} {
		must(os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600))
	}
	must(os.Symlink("../other", filepath.Join(dir, "mine/link")))
	must(os.Symlink("../other/secret", filepath.Join(dir, "mine/sneak")))
	must(unix.Mkfifo(filepath.Join(dir, "mine/pipe"), 0o666))
	for path, owner := range map[string][2]int{
		"mine": {testUID, testGID}, "mine/sub": {testUID, testGID}, "mine/data": {testUID, testGID}, "mine/sub/deep": {testUID, testGID}, "mine/pipe": {testUID, testGID},
		"other": {testUID + 7, testGID + 7}, "other/secret": {testUID + 7, testGID + 7}, "team": {0, 61236}, "team/shared": {0, 61236},
	} {
		must(os.Lchown(filepath.Join(dir, path), owner[0], owner[1]))
	}
	must(os.Chmod(filepath.Join(dir, "mine"), 0o700))
	must(os.Chmod(filepath.Join(dir, "other"), 0o700))
	must(os.Chmod(filepath.Join(dir, "team"), 0o750))
	must(os.Chmod(filepath.Join(dir, "team/shared"), 0o640))
	return dir
}

// TestBinds: the sandbox sees of its owner's files what was asked for, as its owner may, and writes only where that was asked for.
func TestBinds(t *testing.T) {
	dir := home(t)
	cfg := testConfig(t, "binds")
	m := newManager(t, cfg)
	s := spec("bind-1")
	s.Binds = []launcher.Bind{
		{Source: dir + "/mine", Target: "/home/me/read"}, {Source: dir + "/mine/sub", Target: "/home/me/write", Writable: true},
		{Source: dir + "/mine/data", Target: "/data/one/file"}, {Source: dir + "/team", Target: "/data/team"},
	}
	mustStart(t, m, s)
	found := told(t, cfg, "bind-1")
	for key, want := range map[string]string{
		"read /home/me/read/data": "mine/data", "read /home/me/read/sub/deep": "mine/sub/deep", "read /home/me/write/deep": "mine/sub/deep",
		"read /data/one/file": "mine/data", "read /data/team/shared": "team/shared",
		"read /home/me/read/link/secret": "ENOENT", "read /home/me/read/sneak": "ENOENT",
		"write /home/me/read/x": "EROFS", "write /home/me/write/x": "ok", "write /data/one/file": "EROFS", "write /data/team/x": "EROFS",
		"write /home/x": "EROFS|EACCES", "write /home/me/x": "EROFS|EACCES", "write /data/x": "EROFS|EACCES",
	} {
		if got := found[key]; !strings.Contains("|"+want+"|", "|"+got+"|") {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	info, err := os.Stat(dir + "/mine/sub/x")
	if err != nil || info.Sys() == nil {
		t.Fatalf("what the sandbox wrote: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/mine/sub/x", &st); err != nil || st.Uid != testUID {
		t.Errorf("what the sandbox wrote is uid %d's, %v", st.Uid, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.RunDir, "launch/binds/*")); len(left) > 0 {
		t.Errorf("staged after the start: %v", left)
	}
}

func TestBindsRefused(t *testing.T) {
	dir := home(t)
	m := newManager(t, testConfig(t, "sleep"))
	for name, c := range map[string]struct {
		bind launcher.Bind
		want string
	}{
		"another's file":           {launcher.Bind{Source: dir + "/other/secret", Target: "/home/x"}, "permission denied"},
		"through a link":           {launcher.Bind{Source: dir + "/mine/link/secret", Target: "/home/x"}, "symbolic link"},
		"a link":                   {launcher.Bind{Source: dir + "/mine/sneak", Target: "/home/x"}, "symbolic link"},
		"through /proc":            {launcher.Bind{Source: "/proc/1/root/etc/shadow", Target: "/home/x"}, ""},
		"nothing":                  {launcher.Bind{Source: dir + "/mine/none", Target: "/home/x"}, "no such file"},
		"a pipe":                   {launcher.Bind{Source: dir + "/mine/pipe", Target: "/home/x"}, "neither a folder"},
		"a device":                 {launcher.Bind{Source: "/dev/null", Target: "/home/x"}, "neither a folder"},
		"no target":                {launcher.Bind{Source: dir + "/mine"}, "target"},
		"target is /":              {launcher.Bind{Source: dir + "/mine", Target: "/"}, "target"},
		"target is a top folder":   {launcher.Bind{Source: dir + "/mine", Target: "/home"}, "target"},
		"target in /etc":           {launcher.Bind{Source: dir + "/mine", Target: "/etc/x"}, "target"},
		"target in /usr":           {launcher.Bind{Source: dir + "/mine", Target: "/usr/lib"}, "target"},
		"target over the executor": {launcher.Bind{Source: dir + "/mine", Target: "/gleaner/executor"}, "target"},
		"target climbs":            {launcher.Bind{Source: dir + "/mine", Target: "/home/../etc/x"}, "target"},
		"relative source":          {launcher.Bind{Source: "mine", Target: "/home/x"}, "source"},
		"source climbs":            {launcher.Bind{Source: dir + "/mine/../other", Target: "/home/x"}, "source"},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec("bind-1")
			s.Binds = []launcher.Bind{c.bind}
			if _, err := m.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start: %v, want %q", err, c.want)
			}
		})
	}
}

// TestSwaps: while the user swaps a folder for a link to another's, each bind shows the folder or is refused, and never the other's. Root
// never opens anything there either: nothing of the other's is reached with root's rights.
func TestSwaps(t *testing.T) {
	dir := home(t)
	needSupport(t)
	path := dir + "/mine/sub"
	if err := os.Rename(path, dir+"/mine/real"); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = os.Rename(dir+"/mine/real", path)
			_ = os.Rename(path, dir+"/mine/real")
			_ = os.Symlink("../other", path)
			_ = os.Remove(path)
		}
	}()
	s := spec("swap-1")
	opened := 0
	for range 20000 {
		f, info, err := openAs(s, path+"/deep")
		if err != nil {
			continue
		}
		opened++
		if st := info.Sys().(*syscall.Stat_t); st.Uid != testUID {
			t.Fatalf("opened a file of uid %d", st.Uid)
		}
		_ = f.Close()
		if _, _, err := openAs(s, path+"/secret"); err == nil {
			t.Fatal("opened another's secret")
		}
		if opened == 50 {
			break
		}
	}
	stop.Store(true)
	<-done
	if opened == 0 {
		t.Error("never won against the swapping: the test says nothing")
	}
	if got := os.Geteuid(); got != 0 {
		t.Errorf("this process is uid %d now", got)
	}
}
