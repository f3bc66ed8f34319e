package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clean removes every trace of the cluster of a folder, whatever of it still lives and whatever of the folder is left: its
// processes, those of its jobs and sandboxes, its cgroups and devices, the mounts below the folder, and the folder.
func Clean(dir string) error {
	dir, err := locate(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil && !isCluster(dir) {
		if os.Remove(dir) == nil { // empty
			return cleanOutside(dir)
		}
		return fmt.Errorf("cluster folder %s: no cluster is in it, nothing was removed", dir)
	}
	if err := cleanOutside(dir); err != nil {
		return err
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// cleanGrace is short: nothing that the daemons could still save is kept.
const cleanGrace = 300 * time.Millisecond

// cleanOutside ends the processes and removes the cgroups and devices of a folder's cluster.
func cleanOutside(dir string) error {
	name := clusterName(dir)
	// Daemons first, so that nothing starts anew; then what they leave: job steps, sandboxes, waiting clients.
	// munged last: the others say goodbye to each other with its credentials.
	munged := func(r record) bool { return filepath.Base(r.Args[0]) == "munged" }
	left := endAll(slices.DeleteFunc(daemonsOf(dir), munged), cleanGrace)
	left = append(left, endAll(clientsOf(dir), 0)...)
	if err := removeCgroups(name); err != nil {
		return err
	}
	left = append(left, endAll(daemonsOf(dir), 0)...)
	if err := removeGPUs(name); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("processes of the cluster in %s do not end: %v", dir, left)
	}
	return nil
}

// daemonsOf finds what was started for the folder, by record and by mark.
func daemonsOf(dir string) []record {
	found := processes(func(_ int, environ, _ []string) bool { return slices.Contains(environ, member+dir) })
	files, _ := filepath.Glob(filepath.Join(dir, "proc", "*.json"))
	for _, file := range files {
		r, err := readRecord(file)
		same := func(o record) bool { return o.PID == r.PID }
		if err == nil && r.alive() && !slices.ContainsFunc(found, same) {
			found = append(found, r)
		}
	}
	return found
}

// gpusOf finds the devices of a cluster.
func gpusOf(name string) []string {
	files, _ := filepath.Glob(gpuPrefix(name) + "*")
	return files
}

func removeGPUs(name string) error {
	for _, file := range gpusOf(name) {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove a device of cluster %s: %w", name, err)
		}
	}
	return nil
}

// clientsOf finds commands that wait for the cluster and would wait for ever. A shell that merely has the cluster's environment
// is left alone.
func clientsOf(dir string) []record {
	conf := "SLURM_CONF=" + (&spec{Dir: dir}).SlurmConf()
	waiting := []string{"srun", "salloc", "sattach", "sbatch", "gleaner"}
	return processes(func(_ int, environ, args []string) bool {
		return slices.Contains(environ, conf) && slices.Contains(waiting, filepath.Base(args[0]))
	})
}

// Traces lists what is left of the cluster of a folder: processes, cgroups, devices, mounts and files. A test of Down expects none.
func Traces(dir string) []string {
	var traces []string
	dir, err := locate(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range append(daemonsOf(dir), clientsOf(dir)...) {
		traces = append(traces, fmt.Sprintf("process %d %s", r.PID, strings.Join(r.Args, " ")))
	}
	for _, group := range cgroupsOf(clusterName(dir)) {
		traces = append(traces, "cgroup "+group)
		for _, pid := range pidsBelow(group) {
			traces = append(traces, fmt.Sprintf("process %d in %s", pid, group))
		}
	}
	for _, file := range gpusOf(clusterName(dir)) {
		traces = append(traces, "device "+file)
	}
	mounts, _ := mountsBelow(dir)
	for _, mount := range mounts {
		traces = append(traces, "mount "+mount)
	}
	if _, err := os.Lstat(dir); err == nil {
		traces = append(traces, "folder "+dir)
	}
	return traces
}

// cgroupsOf finds the tops of the cgroups that carry the cluster's name: Slurm's (v1 slurm_NODE, v2 NODE_slurmstepd.scope) and
// Gleaner's, in every hierarchy.
func cgroupsOf(name string) []string {
	ours := regexp.MustCompile(`^(slurm_` + name + `n\d+|` + name + `n\d+_slurmstepd\.scope|gleaner-` + name + `)$`)
	var tops []string
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/" + pattern)
		for _, dir := range dirs {
			if ours.MatchString(filepath.Base(dir)) {
				if info, err := os.Lstat(dir); err == nil && info.IsDir() {
					tops = append(tops, dir)
				}
			}
		}
	}
	return tops
}

// removeCgroups kills what is in the cluster's cgroups and removes them.
func removeCgroups(name string) error {
	deadline := time.Now().Add(10 * time.Second)
	var last error
	for {
		tops := cgroupsOf(name)
		if len(tops) == 0 {
			return nil
		}
		for _, top := range tops {
			thaw(top)
			for _, pid := range pidsBelow(top) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			last = removeTree(top)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroups of cluster %s: %w", name, last)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// thaw lets frozen processes die.
func thaw(top string) {
	_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.WriteFile(filepath.Join(path, "freezer.state"), []byte("THAWED"), 0)
			_ = os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("0"), 0)
		}
		return nil
	})
}

// pidsBelow lists the processes in a cgroup and its descendants, except this one.
func pidsBelow(top string) []int {
	var pids []int
	_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

func removeTree(top string) error {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("rmdir %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts what is mounted in the folder, the innermost first.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, mount := range slices.Backward(mounts) {
		if err := unix.Unmount(mount, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	return nil
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)

func mountsBelow(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var mounts []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := octal.ReplaceAllStringFunc(fields[4], func(s string) string {
			code, _ := strconv.ParseUint(s[1:], 8, 8)
			return string([]byte{byte(code)})
		})
		if point == dir || strings.HasPrefix(point, dir+"/") {
			mounts = append(mounts, point)
		}
	}
	return mounts, nil
}
