package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// shutPrefix begins the name of the cgroup that a gate leaves below the node's, after which it kills what is there by force. The rest
// is its job's number. A sandbox that is on its way in is killed, or sees the mark: it looks once it is in its cgroup and before the
// executor runs.
const shutPrefix = "shut."

// Open takes away the marks of jobs whose gates have shut the node, and returns the jobs whose marks are left. Nothing is started while
// there is one.
func (m *Manager) Open(_ context.Context, jobs ...uint32) (left []uint32, err error) {
	for _, job := range jobs {
		mark := m.group(shutPrefix + strconv.FormatUint(uint64(job), 10)).dir("freezer")
		if err := unix.Rmdir(mark); err != nil && err != unix.ENOENT {
			return nil, &os.PathError{Op: "remove cgroup", Path: mark, Err: err}
		}
	}
	entries, err := os.ReadDir(m.group("").dir("freezer"))
	for _, e := range entries {
		digits, marked := strings.CutPrefix(e.Name(), shutPrefix)
		if job, err := strconv.ParseUint(digits, 10, 32); marked && err == nil {
			left = append(left, uint32(job))
		}
	}
	slices.Sort(left)
	return left, err
}

// makeNodeGroup lets gates find the node's cgroup, whether or not anything has ever been started.
func (m *Manager) makeNodeGroup() error { return os.MkdirAll(m.group("").dir("freezer"), 0o755) }

// open fails while a gate has shut the node.
func (m *Manager) open(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), m.makeNodeGroup()); err != nil {
		return err
	}
	jobs, err := m.Open(ctx)
	if err == nil && len(jobs) > 0 {
		err = fmt.Errorf("%w: jobs %v", launcher.ErrShut, jobs)
	}
	return err
}
