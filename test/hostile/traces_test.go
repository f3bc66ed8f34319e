package hostile

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// traces are what exists on the host under a name: cgroups, mounts, folders.
func (n *node) traces(name string) []string {
	var found []string
	for _, root := range hierarchies() {
		for _, dir := range []string{filepath.Join(root, parent, n.name, name), filepath.Join(root, parent, name)} {
			if exists(dir) {
				found = append(found, dir)
			}
		}
	}
	for _, folder := range []string{"executors", "launch/sandboxes"} {
		if dir := n.run(folder, name); exists(dir) {
			found = append(found, dir)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.dir) && strings.Contains(line, "/"+name) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// ownedBy lists what a user still has on the host: processes, shared memory, files in the folders that everybody may write to.
func ownedBy(uid uint32) []string {
	var found []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range processes {
		status, _ := os.ReadFile(filepath.Join(path, "status"))
		_, ids, _ := strings.Cut(string(status), "\nUid:")
		if fields := strings.Fields(ids); len(fields) > 0 && fields[0] == strconv.Itoa(int(uid)) {
			found = append(found, "process "+filepath.Base(path))
		}
	}
	segments, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(segments)) {
		if fields := strings.Fields(line); len(fields) > 7 && fields[7] == strconv.Itoa(int(uid)) {
			found = append(found, "shared memory "+fields[1])
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/run"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Sys().(*syscall.Stat_t).Uid == uid {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	return found
}

// hierarchies are the mounted cgroup hierarchies.
func hierarchies() []string {
	if exists("/sys/fs/cgroup/cgroup.controllers") {
		return []string{"/sys/fs/cgroup"}
	}
	all, _ := filepath.Glob("/sys/fs/cgroup/*")
	return all
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// descriptors counts this process's open files.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}
