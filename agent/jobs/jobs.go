// Package jobs sees which Slurm jobs run on this node, without asking Slurm: by the cgroups that slurmd makes for them (v1, hybrid,
// v2) and by the sockets of their steps in slurmd's spool folder. The agent looks after its own start and before it believes that a
// job is gone. It only reads, and only below the file system that it is given.
package jobs

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Scan says where to look. Paths are relative to the FS, as fs.FS wants them.
type Scan struct {
	FS     fs.FS    // the root file system
	Node   string   // as slurm.conf names it
	Cgroup []string // cgroup mounts; nil means every place where they are usually
	Spool  []string // slurmd's spool folders; nil means Debian's and Slurm's defaults
}

// Found is what runs here.
type Found struct {
	Jobs map[uint32]bool
	// Nameless counts job cgroups that name no job id (Slurm 26.05 names them by SLUID).
	Nameless int
}

// Look finds the jobs with a live process or a step socket.
func (s Scan) Look() Found {
	found := Found{Jobs: map[uint32]bool{}}
	mounts := s.Cgroup
	if mounts == nil {
		mounts = []string{
			"sys/fs/cgroup", "sys/fs/cgroup/unified", // v2, hybrid
			"sys/fs/cgroup/freezer", "sys/fs/cgroup/cpuset", "sys/fs/cgroup/memory", "sys/fs/cgroup/devices", "sys/fs/cgroup/cpu",
		}
	}
	for _, mount := range mounts {
		s.v1(mount, &found)
		s.v2(mount, &found)
	}
	spools := s.Spool
	if spools == nil {
		spools = []string{"var/spool/slurmd", "var/spool/slurm/slurmd", "var/lib/slurm/slurmd"}
	}
	for _, spool := range spools {
		entries, _ := fs.ReadDir(s.FS, spool)
		for _, e := range entries {
			if job, ok := StepSocket(e.Name(), s.Node); ok && e.Type()&fs.ModeSocket != 0 {
				found.Jobs[job] = true
			}
		}
	}
	return found
}

// v1 looks below <controller>/slurm_<node> or, with one slurmd per host, <controller>/slurm: uid_U/job_J.
func (s Scan) v1(mount string, found *Found) {
	top := path.Join(mount, "slurm_"+s.Node)
	users, err := fs.ReadDir(s.FS, top)
	if err != nil {
		top = path.Join(mount, "slurm")
		if users, err = fs.ReadDir(s.FS, top); err != nil {
			return
		}
	}
	for _, user := range users {
		if strings.HasPrefix(user.Name(), "uid_") {
			s.scope(path.Join(top, user.Name()), found)
		}
	}
}

// v2 looks below system.slice/[<node>_]slurmstepd.scope.
func (s Scan) v2(mount string, found *Found) {
	for _, scope := range []string{s.Node + "_slurmstepd.scope", "slurmstepd.scope"} {
		top := path.Join(mount, "system.slice", scope)
		if _, err := fs.Stat(s.FS, top); err == nil {
			s.scope(top, found)
			return
		}
	}
}

// scope enters every job's folder with a live process below dir.
func (s Scan) scope(dir string, found *Found) {
	entries, _ := fs.ReadDir(s.FS, dir)
	for _, e := range entries {
		job, named := Folder(e.Name())
		nameless := !named && e.IsDir() && SLUID(e.Name())
		if !named && !nameless || !s.live(path.Join(dir, e.Name())) {
			continue
		}
		if named {
			found.Jobs[job] = true
		} else {
			found.Nameless++
		}
	}
}

// live says whether a process is in the cgroup or below it.
func (s Scan) live(dir string) bool {
	live := false
	_ = fs.WalkDir(s.FS, dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has just gone
		}
		if !e.IsDir() && e.Name() == "cgroup.procs" {
			text, _ := fs.ReadFile(s.FS, p)
			if len(text) > 0 {
				live = true
				return fs.SkipAll
			}
		}
		return nil
	})
	return live
}

// Folder reads the name of a job's cgroup: job_J.
func Folder(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, "job_")
	if !ok {
		return 0, false
	}
	job, err := strconv.ParseUint(digits, 10, 32)
	return uint32(job), err == nil && job > 0
}

// SLUID says whether a name is that of a job's cgroup from Slurm 26.05 on: s followed by 13 letters and digits.
func SLUID(name string) bool {
	if len(name) != 14 || name[0] != 's' {
		return false
	}
	for _, c := range name[1:] {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// StepSocket reads the name of a step's socket in the spool folder: <node>_<job>.<step>.
func StepSocket(name, node string) (uint32, bool) {
	rest, ok := strings.CutPrefix(name, node+"_")
	if !ok {
		return 0, false
	}
	digits, step, ok := strings.Cut(rest, ".")
	if _, err := strconv.ParseUint(strings.TrimSuffix(step, ".0"), 10, 32); !ok || err != nil {
		return 0, false
	}
	job, err := strconv.ParseUint(digits, 10, 32)
	return uint32(job), err == nil && job > 0
}
