package sandbox

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

var (
	keyForm  = regexp.MustCompile(`^([0-9a-f]{64})?$`)
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	// ownTops are the folders at the top of a sandbox that files of the owner's may not stand in.
	ownTops = regexp.MustCompile(`^/(bin|boot|dev|etc|gleaner|lib[a-z0-9]*|proc|root|run|sbin|sys|tmp|usr|var)/`)
)

// rule is what has to hold of a field.
type rule struct {
	holds       bool
	field, want string
}

func check(rules ...rule) error {
	for _, r := range rules {
		if !r.holds {
			return fmt.Errorf("%s has to be %s", r.field, r.want)
		}
	}
	return nil
}

func every[T any](all []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(all, func(one T) bool { return !holds(one) })
}

// validate refuses a Config with which sandboxes would be somewhere else than meant.
func validate(c Config) error {
	return check(
		rule{filepath.IsAbs(c.RunDir) && filepath.Clean(c.RunDir) != "/", "run directory", "an absolute path below /"},
		rule{filepath.IsAbs(c.Libexec) && filepath.Clean(c.Libexec) != "/", "libexec directory", "an absolute path below /"},
		rule{nameForm.MatchString(c.CgroupParent), "cgroup parent", "one path component, such as gleaner"},
		rule{nameForm.MatchString(c.Node), "node", "one path component"},
		rule{every(c.Devices, belowDev), "device", "a path or pattern below /dev"},
	)
}

// admit refuses what a sandbox may not be, naming the field.
func admit(s launcher.Spec, allowed []string) error {
	unprivileged := func(id uint32) bool { return id != 0 && id != ^uint32(0) }
	return check(
		rule{idForm.MatchString(s.ID), "id", "1 to 64 of a-z, 0-9 and -, not - first"},
		rule{unprivileged(s.UID), "uid", "an unprivileged user's"},
		rule{unprivileged(s.GID), "gid", "an unprivileged group's"},
		rule{len(s.Groups) <= 256 && every(s.Groups, unprivileged), "groups", "unprivileged, and at most 256"},
		rule{every(s.CPUs, func(n int) bool { return n >= 0 && n < 8192 }), "cpus", "0 to 8191"},
		rule{s.MilliCPUs >= 10 && s.MilliCPUs <= 1024000, "milli_cpus", "10 to 1024000"},
		rule{s.MemoryBytes >= 16<<20 && s.MemoryBytes <= 1<<50, "memory_bytes", "2^24, below which not even the setup fits, to 2^50"},
		rule{s.TmpBytes > 0 && s.TmpBytes <= s.MemoryBytes, "tmp_bytes", "1 to memory_bytes"},
		rule{s.PIDs > 0 && s.PIDs <= 32768, "pids", "1 to 32768"},
		rule{keyForm.MatchString(s.Image), "image", "64 hexadecimal digits"},
		rule{len(s.Binds) <= 16, "binds", "at most 16"},
		rule{every(s.Binds, func(b launcher.Bind) bool { return plain(b.Source) }), "binds' source", "an absolute path without . and .."},
		rule{every(s.Binds, targets), "binds' target", "two components or more, outside of what the sandbox has itself"},
		rule{every(s.Devices, func(d string) bool { return offered(d, allowed) }), "devices", "of those below /dev that this launcher was told to allow"},
	)
}

// plain paths are absolute and lead where they seem to, but for links.
func plain(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) < unix.PathMax && !strings.ContainsAny(path, "\x00\n")
}

func belowDev(pattern string) bool {
	_, err := filepath.Match(pattern, "")
	return err == nil && plain(pattern) && strings.HasPrefix(pattern, "/dev/") && !strings.HasPrefix(pattern, "/dev/shm")
}

func offered(device string, allowed []string) bool {
	return belowDev(device) && !strings.ContainsAny(device, "*?[\\") && slices.ContainsFunc(allowed, func(pattern string) bool {
		ok, _ := filepath.Match(pattern, device)
		return ok
	})
}

// targets are two components deep or more, and not where the sandbox has something itself.
func targets(b launcher.Bind) bool {
	return plain(b.Target) && strings.Count(b.Target, "/") > 1 && !ownTops.MatchString(b.Target)
}
