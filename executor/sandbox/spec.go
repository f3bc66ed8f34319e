package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

const (
	minMemory = 16 << 20 // below this not even the setup fits
	maxGroups = 256      // a user namespace has 340 lines
	maxBinds  = 16
	maxPIDs   = 1 << 15
	maxCPU    = 1 << 13
)

var (
	keyForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// validate refuses a Config with which sandboxes would be somewhere else than meant.
func validate(c Config) error {
	for _, f := range []struct{ name, path string }{{"run directory", c.RunDir}, {"libexec directory", c.Libexec}} {
		if !filepath.IsAbs(f.path) || filepath.Clean(f.path) == "/" {
			return fmt.Errorf("%s %q: want an absolute path below /", f.name, f.path)
		}
	}
	if !nameForm.MatchString(c.CgroupParent) {
		return fmt.Errorf("cgroup parent %q: want one path component, such as gleaner", c.CgroupParent)
	}
	if !nameForm.MatchString(c.Node) {
		return fmt.Errorf("node %q: want one path component", c.Node)
	}
	for _, d := range c.Devices {
		if _, err := filepath.Match(d, ""); err != nil || !belowDev(d) {
			return fmt.Errorf("device %q: want a path or pattern below /dev", d)
		}
	}
	return nil
}

func belowDev(path string) bool {
	return strings.HasPrefix(path, "/dev/") && filepath.Clean(path) == path && !strings.HasPrefix(path, "/dev/shm")
}

// admit refuses what a sandbox may not be, naming the field, and fills in the defaults.
func admit(s launcher.Spec, allowed []string) (launcher.Spec, error) {
	refuse := func(field string, value any, want string) (launcher.Spec, error) {
		return launcher.Spec{}, fmt.Errorf("%s %v: want %s", field, value, want)
	}
	switch {
	case !idForm.MatchString(s.ID):
		return refuse("id", fmt.Sprintf("%q", s.ID), "1 to 64 of a-z, 0-9 and -, not - first")
	case s.UID == 0 || s.UID == ^uint32(0):
		return refuse("uid", s.UID, "an unprivileged user")
	case s.GID == 0 || s.GID == ^uint32(0):
		return refuse("gid", s.GID, "an unprivileged group")
	case len(s.Groups) > maxGroups:
		return refuse("groups", len(s.Groups), fmt.Sprintf("at most %d", maxGroups))
	case s.MilliCPUs < 10 || s.MilliCPUs > 1024000:
		return refuse("milli_cpus", s.MilliCPUs, "10 to 1024000")
	case s.MemoryBytes < minMemory || s.MemoryBytes > 1<<50:
		return refuse("memory_bytes", s.MemoryBytes, fmt.Sprintf("%d to 2^50", minMemory))
	case s.TmpBytes < 0 || s.TmpBytes > s.MemoryBytes:
		return refuse("tmp_bytes", s.TmpBytes, "0 to memory_bytes")
	case len(s.Binds) > maxBinds:
		return refuse("binds", len(s.Binds), fmt.Sprintf("at most %d", maxBinds))
	case s.Image != "" && !keyForm.MatchString(s.Image):
		return refuse("image", fmt.Sprintf("%q", s.Image), "64 hexadecimal digits")
	case s.PIDs < 0 || s.PIDs > maxPIDs:
		return refuse("pids", s.PIDs, fmt.Sprintf("0 to %d", maxPIDs))
	}
	for _, g := range s.Groups {
		if g == 0 || g == ^uint32(0) {
			return refuse("groups", g, "unprivileged groups")
		}
	}
	for _, n := range s.CPUs {
		if n < 0 || n >= maxCPU {
			return refuse("cpus", n, fmt.Sprintf("0 to %d", maxCPU-1))
		}
	}
	for _, b := range s.Binds {
		if err := admitBind(b); err != nil {
			return launcher.Spec{}, err
		}
	}
	for _, d := range s.Devices {
		if err := admitDevice(d, allowed); err != nil {
			return launcher.Spec{}, err
		}
	}
	return s, nil
}

// ownTops are the folders at the top of a sandbox that files of the owner's may not stand in.
var ownTops = regexp.MustCompile(`^/(bin|boot|dev|etc|gleaner|lib[a-z0-9]*|proc|root|run|sbin|sys|tmp|usr|var)$`)

// top is the first component of an absolute path.
func top(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return "/" + first
}

func admitBind(b launcher.Bind) error {
	for name, path := range map[string]string{"source": b.Source, "target": b.Target} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) >= unix.PathMax || strings.ContainsAny(path, "\x00\n") {
			return fmt.Errorf("binds: %s %q: want an absolute path without . and ..", name, path)
		}
	}
	if t := top(b.Target); t == b.Target || ownTops.MatchString(t) {
		return fmt.Errorf("binds: target %q: want a path of two components or more, outside of what the sandbox has itself", b.Target)
	}
	return nil
}

func admitDevice(path string, allowed []string) error {
	if !belowDev(path) || strings.ContainsAny(path, "*?[\\") {
		return fmt.Errorf("devices %q: want a file below /dev", path)
	}
	for _, pattern := range allowed {
		if ok, _ := filepath.Match(pattern, path); !ok {
			continue
		}
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("devices: %w", err)
		}
		if info.Mode()&os.ModeCharDevice == 0 {
			return fmt.Errorf("devices %q: not a character device", path)
		}
		return nil
	}
	return fmt.Errorf("devices %q: not among those that this launcher was told to allow", path)
}

func tmpBytes(s launcher.Spec) int64 {
	if s.TmpBytes == 0 {
		return s.MemoryBytes / 4
	}
	return s.TmpBytes
}

func pidLimit(s launcher.Spec) int64 {
	if s.PIDs == 0 {
		return 256
	}
	return int64(s.PIDs)
}

// quota turns thousandths of a CPU into microseconds of CPU per period. Short periods keep the pauses of a throttled executor
// short; the kernel takes no quota below 1 ms.
func quota(milli int) (quota int64, period uint64) {
	if milli >= 100 {
		return int64(milli) * 10, 10_000
	}
	return int64(milli) * 100, 100_000
}
