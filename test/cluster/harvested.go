package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// NodeGroups are the cgroups <parent>/NODE that exist, of every hierarchy.
func (c *Cluster) NodeGroups(node string) []string {
	var tops []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, _ := filepath.Glob(filepath.Join(root, c.CgroupParent(), node))
		tops = append(tops, dirs...)
	}
	return tops
}

// Harvested lists the processes in a node's harvested cgroups, by sandbox id, from the cgroup file systems alone.
func (c *Cluster) Harvested(node string) map[string][]int {
	found := map[string][]int{}
	for _, top := range c.NodeGroups(node) {
		files, _ := filepath.Glob(filepath.Join(top, "*", "cgroup.procs"))
		for _, file := range files {
			text, _ := os.ReadFile(file)
			id := filepath.Base(filepath.Dir(file))
			for pid := range strings.FieldsSeq(string(text)) {
				if number, err := strconv.Atoi(pid); err == nil && !slices.Contains(found[id], number) {
					found[id] = append(found[id], number)
				}
			}
		}
	}
	return found
}

// Leftovers lists what sandboxes left on any node: cgroups with or without processes, folders, mounts. After the last lease has ended
// it is empty.
func (c *Cluster) Leftovers() []string {
	var found []string
	for _, node := range c.NodeNames() {
		for _, top := range c.NodeGroups(node) {
			groups, _ := filepath.Glob(filepath.Join(top, "*", "cgroup.procs"))
			for _, group := range groups {
				found = append(found, "cgroup "+filepath.Dir(group))
			}
		}
		folders, _ := filepath.Glob(filepath.Join(c.RunDir(node), "executors", "*"))
		for _, folder := range folders {
			found = append(found, "folder "+folder)
		}
	}
	mounts, _ := mountsBelow(c.Dir)
	for _, mount := range mounts {
		if c.StateMiB == 0 || mount != c.StateDir("brokerd") && filepath.Base(mount) != "state" {
			found = append(found, "mount "+mount)
		}
	}
	return found
}
