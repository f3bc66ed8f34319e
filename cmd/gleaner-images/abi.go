package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// needs is what an image must have so that the worker runs in it: it is started by the image's own loader, on the image's own C library,
// because the user's function is linked against that.
type needs struct {
	machine elf.Machine
	loader  string // path of the interpreter
	glibc   glibc  // the lowest
}

// glibc is a version of the GNU C library, as 2.36.
type glibc struct{ major, minor int }

func (g glibc) String() string { return fmt.Sprintf("%d.%d", g.major, g.minor) }
func (g glibc) before(other glibc) bool {
	return g.major < other.major || g.major == other.major && g.minor < other.minor
}

// newest is the highest of versions named GLIBC_x.y.
func newest(names []string) glibc {
	var most glibc
	for _, name := range names {
		major, minor, found := strings.Cut(strings.TrimPrefix(name, "GLIBC_"), ".")
		minor, _, _ = strings.Cut(minor, ".")
		var g glibc
		var err1, err2 error
		g.major, err1 = strconv.Atoi(major)
		g.minor, err2 = strconv.Atoi(minor)
		if found && errors.Join(err1, err2) == nil && most.before(g) {
			most = g
		}
	}
	return most
}

func needsOf(worker string) (needs, error) {
	f, err := elf.Open(worker)
	if err != nil {
		return needs{}, err
	}
	defer func() { _ = f.Close() }()
	n := needs{machine: f.Machine}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text := make([]byte, p.Filesz)
			if _, err := p.ReadAt(text, 0); err != nil {
				return n, err
			}
			n.loader = strings.TrimRight(string(text), "\x00")
		}
	}
	libraries, err := f.DynamicVersionNeeds()
	if err != nil {
		return n, err
	}
	var names []string
	for _, l := range libraries {
		for _, v := range l.Needs {
			names = append(names, v.Dep)
		}
	}
	n.glibc = newest(names)
	return n, nil
}

// check says why functions cannot run in a root, and whether libfabric is in it.
func (n needs) check(root string) (fabric bool, err error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look into the image: %w", err)
	}
	defer func() { _ = unix.Close(dir) }()
	loader, err := openIn(dir, n.loader)
	if err != nil {
		return false, fmt.Errorf("the image has no %s: functions need a GNU C library of version %v or later, as in Debian 12, Ubuntu 22.04 or RHEL 9; musl is none", n.loader, n.glibc)
	}
	_ = loader.Close()
	libc, err := findLibrary(dir, "libc.so.6")
	if err != nil {
		return false, fmt.Errorf("the image has no libc.so.6: functions need a GNU C library of version %v or later", n.glibc)
	}
	defer func() { _ = libc.Close() }()
	f, err := elf.NewFile(libc)
	if err != nil {
		return false, fmt.Errorf("the image's libc.so.6: %w", err)
	}
	if f.Machine != n.machine {
		return false, fmt.Errorf("the image is for %v, this node is %v: pull it for %s", f.Machine, n.machine, runtime.GOARCH)
	}
	versions, err := f.DynamicVersions()
	if err != nil {
		return false, fmt.Errorf("the image's libc.so.6: %w", err)
	}
	names := make([]string, len(versions))
	for i, v := range versions {
		names[i] = v.Name
	}
	if has := newest(names); has.before(n.glibc) {
		return false, fmt.Errorf("the image has the GNU C library %v, and functions need %v or later: use a later image, as of Debian 12, Ubuntu 22.04 or RHEL 9", has, n.glibc)
	}
	carrier, err := findLibrary(dir, "libfabric.so.1")
	if err == nil {
		_ = carrier.Close()
	}
	return err == nil, nil
}

// openIn opens a file of the image; its links lead to where they would inside.
func openIn(root int, name string) (*os.File, error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// findLibrary looks where loaders look.
func findLibrary(root int, name string) (*os.File, error) {
	triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	for _, dir := range []string{"lib/" + triple, "usr/lib/" + triple, "lib64", "usr/lib64", "lib", "usr/lib", "usr/local/lib", "usr/local/lib64"} {
		if f, err := openIn(root, path.Join(dir, name)); err == nil {
			return f, nil
		}
	}
	return nil, os.ErrNotExist
}
