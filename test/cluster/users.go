package cluster

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/gleaner-hpc/gleaner/agent/confine"
)

// handOver gives the folders in which daemons write to the users that they run as: nothing there is root's.
func (c *Cluster) handOver() error {
	broker, agent := brokerUser(), agentUser()
	mine := map[string]*syscall.Credential{c.path("rest"): broker, c.path("broker"): broker}
	for _, node := range c.NodeNames() {
		mine[c.path("agent", node)], mine[c.StateDir("agentd/"+node)] = agent, agent
	}
	for dir, user := range mine {
		if err := os.Chown(dir, int(user.Uid), int(user.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// agentUser is whom agents run as: gleaner, as on a site, or an id that nobody else has.
func agentUser() *syscall.Credential { return known("gleaner", 64321) }

// brokerUser is whom broker and slurmrestd run as: gleaner, or nobody. slurmrestd answers only users who have a name.
func brokerUser() *syscall.Credential { return known("gleaner", 65534) }

func known(name string, otherwise uint32) *syscall.Credential {
	if known, err := user.Lookup(name); err == nil {
		uid, err1 := strconv.ParseUint(known.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(known.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid > 0 && gid > 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return &syscall.Credential{Uid: otherwise, Gid: otherwise}
}

// passable is where users other than root can run or load a built file: as built, or a copy when the build folder is closed to others.
func (c *Cluster) passable(built string) string {
	if open(filepath.Dir(built)) {
		return built
	}
	return c.path("lib", filepath.Base(built))
}

// copyClosed makes the copies that passable names.
func (c *Cluster) copyClosed() error {
	files := []string{c.lib("bin", "gleaner-brokerd"), c.lib("bin", "gleaner-agentd")}
	if c.gated() {
		files = append(files, c.built())
	}
	for _, program := range c.Programs {
		files = append(files, program)
	}
	for _, file := range files {
		to := c.passable(file)
		if to == file {
			continue
		}
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // skipped says so
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, text, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// lacking are the guards that this machine cannot give: a cluster for tests does without.
func lacking() []string {
	var names []string
	for _, f := range confine.Look(os.DirFS("/"), nil) {
		if !f.Given {
			names = append(names, strconv.Quote(f.Name))
		}
	}
	return names
}
