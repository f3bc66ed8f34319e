package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Kill ends sandboxes, all at the same time. It returns when their processes are gone and their memory is free, or at ctx's deadline
// (1 s where there is none) with those that remain. Ids that do not exist count as ended.
func (m *Manager) Kill(ctx context.Context, ids ...string) ([]string, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	defer m.kill()()
	ended := make([]bool, len(ids))
	boxes := make([]*box, len(ids))
	for i, id := range ids {
		if boxes[i] = m.find(id); boxes[i] != nil {
			boxes[i].strike()
		}
	}
	var wg sync.WaitGroup
	for i, b := range boxes {
		if b != nil {
			wg.Go(func() { ended[i] = b.end(ctx) })
		} else {
			ended[i] = true
		}
	}
	wg.Wait()
	var remaining []string
	for i, id := range ids {
		if !ended[i] {
			remaining = append(remaining, id)
		}
	}
	return remaining, nil
}

// kill notes that a kill is under way until what it returns is called.
func (m *Manager) kill() (over func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kills == 0 {
		m.weigh(among)
		m.calmed = make(chan struct{})
	}
	m.kills++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.kills--; m.kills == 0 {
			m.weigh(last)
			close(m.calmed)
		}
	}
}

// calm is closed when no kill is under way.
func (m *Manager) calm() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calmed
}

// strike kills the first process, whose death is everybody's in its pid namespace: no list has to be read for it. It takes
// microseconds, so that the last of many sandboxes is struck as soon as the first.
func (b *box) strike() {
	b.mu.Lock()
	b.doomed = true
	b.mu.Unlock()
	select {
	case <-b.ready:
	default:
		return
	}
	if b.pidfd == nil {
		return
	}
	if raw, err := b.pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

// end kills the box, again and again until it is dead; one that is just starting as soon as it has started. The first strike is
// enough for most: what else can be done costs CPUs that the dying need, and comes when they are not dead soon, or are large.
func (b *box) end(ctx context.Context) bool {
	b.strike()
	pause, small := 5*time.Millisecond, false
	select {
	case <-b.ready:
		b.group.wake()
		if charged, _ := b.group.memory(); charged < largeSandbox {
			pause, small = strikeAlone, true
		}
	default:
	}
	for ; ; pause = min(max(2*pause, 5*time.Millisecond), 50*time.Millisecond) {
		select {
		case <-b.ready:
			if !small {
				b.group.kill()
			}
		default:
		}
		small = false
		select {
		case <-b.dead:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

const (
	strikeAlone  = 3 * time.Millisecond // for the first strike, before the rest is tried too
	largeSandbox = 64 << 20             // bytes from which on several sides free its memory
)

// adopt takes over the sandboxes of an earlier Manager that still run, and removes all that is left of others.
func (m *Manager) adopt() error {
	entries, err := os.ReadDir(m.states())
	if err != nil {
		return fmt.Errorf("adopt sandboxes: %w", err)
	}
	for _, e := range entries {
		b, err := m.load(e.Name())
		if err != nil {
			m.cfg.Log.Info("remains of a sandbox", "task", e.Name(), "why", err)
			continue
		}
		m.boxes[b.id] = b
		m.watch(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.sweep(ctx)
}

func (m *Manager) load(id string) (*box, error) {
	var note memo
	text, err := os.ReadFile(m.memoPath(id))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &note); err != nil {
		return nil, err
	}
	b := newBox(note.Spec, note.Started)
	b.Before = note.Before
	if b.container, err = libcontainer.Load(m.states(), id); err != nil {
		return nil, err
	}
	state, err := b.container.State()
	if err != nil {
		return nil, err
	}
	b.pid, b.group = state.InitProcessPid, maps.Clone(group(state.CgroupPaths))
	if b.pidfd, err = openPidfd(b.pid); err != nil {
		return nil, err
	}
	b.keepMounts()
	// Only now that the descriptor holds the process can its identity be checked for good.
	if status, err := b.container.Status(); err != nil || status != libcontainer.Running && status != libcontainer.Paused {
		_ = b.pidfd.Close()
		b.dropMounts()
		return nil, fmt.Errorf("not running: %v, %w", status, err)
	}
	close(b.ready)
	return b, nil
}

// CleanUp ends every sandbox of the node and removes all traces, whoever left them. The Manager can be used afterwards.
func (m *Manager) CleanUp(ctx context.Context) error {
	m.mu.Lock()
	boxes := maps.Clone(m.boxes)
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, b := range boxes {
		wg.Go(func() {
			if b.end(ctx) {
				select {
				case <-b.gone:
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	marks, err := m.Open(ctx)
	if err == nil {
		_, err = m.Open(ctx, marks...)
	}
	err = errors.Join(err, m.sweep(ctx))
	for _, root := range hierarchies() {
		node := filepath.Join(root, m.cfg.CgroupParent, m.cfg.Node)
		if rmErr := unix.Rmdir(node); rmErr != nil && rmErr != unix.ENOENT {
			err = errors.Join(err, &os.PathError{Op: "remove cgroup", Path: node, Err: rmErr})
		}
		_ = unix.Rmdir(filepath.Dir(node)) // fails while another node of this host has sandboxes
	}
	return err
}

// sweep removes what belongs to no box: cgroups with all that runs in them, mounts, folders.
func (m *Manager) sweep(ctx context.Context) error {
	var errs []error
	for _, root := range hierarchies() {
		for _, dir := range m.strays(filepath.Join(root, m.cfg.CgroupParent, m.cfg.Node)) {
			errs = append(errs, destroy(ctx, dir))
		}
	}
	for _, dir := range m.strays(m.selves()) {
		errs = append(errs, removeSelf(dir))
	}
	for _, dir := range m.strays(filepath.Join(m.dir(), "binds")) {
		errs = append(errs, m.unstage(filepath.Base(dir)))
	}
	for _, dir := range m.strays(m.states()) {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// strays are the folders in dir that are named like no box.
func (m *Manager) strays(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var all []string
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		if e.IsDir() && m.boxes[e.Name()] == nil && !strings.HasPrefix(e.Name(), shutPrefix) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

// destroy kills what runs in one cgroup and those below it, and removes them.
func destroy(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		pids, err := cgroups.GetAllPids(dir)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(pids) == 0 {
			return cgroups.RemovePath(dir)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		group{"": dir}.hurry()
		group{"freezer": dir}.hurry()
		select {
		case <-ctx.Done():
			return fmt.Errorf("end the processes of cgroup %s: %w", dir, ctx.Err())
		case <-time.After(pause):
		}
	}
}
