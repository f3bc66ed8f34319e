package owner

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Left is what harvested executors held on a node right after the agent's answer, by the cgroup file systems alone.
type Left struct {
	Processes int    `json:"processes"`
	Bytes     uint64 `json:"bytes"` // anonymous and shared memory; the page cache is free for the taking
}

// leftover looks at everything below <parent>/<node> in every hierarchy.
func leftover(root, parent, node string) Left {
	var left Left
	for _, top := range []string{root, filepath.Join(root, "*")} {
		groups, _ := filepath.Glob(filepath.Join(top, parent, node, "*"))
		for _, group := range groups {
			left.Processes += countLines(filepath.Join(group, "cgroup.procs"))
			left.Bytes += charged(filepath.Join(group, "memory.stat"))
		}
	}
	return left
}

func countLines(path string) int {
	text, _ := os.ReadFile(path)
	return strings.Count(string(text), "\n")
}

// charged reads memory.stat of v1 (rss, shmem) or v2 (anon, shmem).
func charged(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var sum uint64
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key == "rss" || key == "anon" || key == "shmem" {
			bytes, _ := strconv.ParseUint(value, 10, 64)
			sum += bytes
		}
	}
	return sum
}

func (l Left) max(m Left) Left {
	return Left{max(l.Processes, m.Processes), max(l.Bytes, m.Bytes)}
}
