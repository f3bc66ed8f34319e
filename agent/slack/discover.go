package slack

import (
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/agent/jobs"
)

// discover brings the known jobs in line with the folders that slurmd has made. It says whether there is any place where it makes them.
//
//	v2  <mount>/system.slice/[<node>_]slurmstepd.scope/{job_J,s<SLUID>}
//	v1  <mount>/memory/slurm[_<node>]/uid_U/job_J, and cpuacct's folder of the same name
func (s *Sampler) discover() bool {
	for _, g := range s.jobs {
		g.seen = false
	}
	found := false
	for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
		for _, scope := range []string{s.cfg.Node + "_slurmstepd.scope", "slurmstepd.scope"} {
			if s.scope(path.Join(mount, "system.slice", scope), true) {
				found = true
				break
			}
		}
	}
	for _, top := range []string{"slurm_" + s.cfg.Node, "slurm"} {
		if s.users(path.Join("sys/fs/cgroup/memory", top)) {
			found = true
			break
		}
	}
	for dir, g := range s.jobs {
		if !g.seen {
			g.close()
			delete(s.jobs, dir)
		}
	}
	return found
}

// users looks below a v1 controller's folder of Slurm.
func (s *Sampler) users(top string) bool {
	users, err := fs.ReadDir(s.cfg.FS, top)
	if err != nil {
		return false
	}
	for _, user := range users {
		if strings.HasPrefix(user.Name(), "uid_") {
			s.scope(path.Join(top, user.Name()), false)
		}
	}
	return true
}

// scope enters every job's folder below dir.
func (s *Sampler) scope(dir string, v2 bool) bool {
	entries, err := fs.ReadDir(s.cfg.FS, dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		folder := path.Join(dir, e.Name())
		if g := s.jobs[folder]; g != nil {
			g.seen = true
			continue
		}
		id, ok := jobs.Folder(e.Name())
		if !ok && jobs.SLUID(e.Name()) {
			id, ok = s.named(folder)
		}
		if ok {
			s.jobs[folder] = newGroup(id, folder, v2)
		}
	}
	return true
}

func newGroup(id uint32, folder string, v2 bool) *group {
	g := &group{id: id, v2: v2, seen: true}
	for i := range g.files {
		name := namesV2[i]
		if !v2 {
			name = namesV1[i]
		}
		if name == "" {
			continue
		}
		at := folder
		if !v2 && i == cpu {
			at = strings.Replace(folder, "sys/fs/cgroup/memory/", "sys/fs/cgroup/cpuacct/", 1)
		}
		g.files[i] = &file{path: path.Join(at, name)}
	}
	return g
}

// named finds out which job a SLUID stands for: its slurmstepd processes call themselves "slurmstepd: [JOB.STEP]". One that cannot be
// found out now is tried again with the next sample.
func (s *Sampler) named(folder string) (uint32, bool) {
	steps, _ := fs.ReadDir(s.cfg.FS, folder)
	for _, step := range steps {
		text, err := fs.ReadFile(s.cfg.FS, path.Join(folder, step.Name(), "slurm", "cgroup.procs"))
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(text)) {
			title, _ := fs.ReadFile(s.cfg.FS, path.Join("proc", pid, "cmdline"))
			if id, ok := stepTitle(string(title)); ok {
				return id, true
			}
		}
	}
	return 0, false
}

// stepTitle reads the name that a slurmstepd gives itself.
func stepTitle(title string) (uint32, bool) {
	rest, ok := strings.CutPrefix(title, "slurmstepd: [")
	digits, _, dot := strings.Cut(rest, ".")
	if !ok || !dot {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 32)
	return uint32(id), err == nil && id > 0
}
