// Package launch is the agent's side of the launcher's socket: it asks the one privileged process of the node to start, freeze
// and end sandboxes, and hears when they end by themselves. It decides nothing, retries nothing, and keeps no state but its
// connection: after a reconnect the caller asks List for the truth, because exits that happened in between are not repeated.
package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// ErrDown is what a DownError is: the launcher cannot be asked at the moment. Nothing is known about the request that was under
// way when the connection broke.
var ErrDown = errors.New("launcher is down")

// ErrDevices is the refusal of a Start that asks for a device file that the launcher does not give. It names the field.
var ErrDevices = errors.New("devices")

// DownError says why the launcher cannot be asked.
type DownError struct {
	Path string // of the launcher's socket
	Err  error
}

func (e *DownError) Error() string {
	return fmt.Sprintf("ask the launcher at %s: %v; is gleaner's launcher running there?", e.Path, e.Err)
}

// Is recognizes the refusal to start on a node that a gate has shut, and that of a device file.
func (e *RefusedError) Is(target error) bool {
	return target == launcher.ErrShut && strings.Contains(e.Reason, launcher.ErrShut.Error()) ||
		target == ErrDevices && strings.HasPrefix(e.Reason, ErrDevices.Error())
}

// CheckDevice says why no launcher would give a device file. Which of the others it gives is its own word; see ErrDevices.
func CheckDevice(path string) error {
	if !strings.HasPrefix(path, "/dev/") || filepath.Clean(path) != path || strings.HasPrefix(path, "/dev/shm") || strings.ContainsAny(path, "*?[\\") {
		return fmt.Errorf("%s is no device file below /dev", path)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	case err == nil && info.Mode()&os.ModeCharDevice == 0:
		return fmt.Errorf("%s is no character device", path)
	}
	return err
}

// Unwrap gives the cause.
func (e *DownError) Unwrap() error { return e.Err }

// Is makes every DownError an ErrDown.
func (e *DownError) Is(target error) bool { return target == ErrDown }

// RefusedError is the launcher's own answer that it did not do what was asked.
type RefusedError struct {
	Verb   launcher.Verb
	Reason string
}

func (e *RefusedError) Error() string {
	hint := ""
	if strings.Contains(e.Reason, unix.ELOOP.Error()) {
		hint = ": a symbolic link is in the way: name the real path"
	}
	return fmt.Sprintf("launcher refused to %s: %s%s", e.Verb, e.Reason, hint)
}

// withDefaults says what a Spec leaves open: /tmp is a quarter of the memory, and there are at most 256 processes and threads.
func withDefaults(spec launcher.Spec) launcher.Spec {
	spec.TmpBytes = cmp.Or(spec.TmpBytes, spec.MemoryBytes/4)
	spec.PIDs = cmp.Or(spec.PIDs, 256)
	return spec
}

// Start creates and starts one sandbox and returns the executor's pid on the host.
func (c *Client) Start(ctx context.Context, spec launcher.Spec) (int, error) {
	reply, err := c.call(ctx, launcher.Request{Verb: launcher.Start, Spec: withDefaults(spec)})
	if err != nil {
		return 0, err
	}
	return reply.PID, nil
}

// Resize gives a running sandbox other cores, memory and process limits.
func (c *Client) Resize(ctx context.Context, spec launcher.Spec) error {
	_, err := c.call(ctx, launcher.Request{Verb: launcher.Resize, Spec: withDefaults(spec)})
	return err
}

// Kill ends sandboxes. It returns when all are gone and their memory is free again, or shortly before ctx's deadline (1 s where
// there is none) with the ids for which that is not so. Ids that do not exist count as ended.
func (c *Client) Kill(ctx context.Context, ids ...string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	reply, err := c.call(ctx, launcher.Request{Verb: launcher.Kill, IDs: ids, Deadline: answerWithin(ctx)})
	if err != nil {
		return ids, err
	}
	return reply.Remaining, nil
}

// answerWithin is the time until shortly before ctx's deadline, 0 where there is none. The answer has to be back before ctx ends, or what it
// says would be lost with it.
func answerWithin(ctx context.Context) time.Duration {
	at, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := time.Until(at)
	return max(left-max(left/20, 5*time.Millisecond), time.Millisecond)
}

// Freeze stops every process of the sandboxes until Thaw.
func (c *Client) Freeze(ctx context.Context, ids ...string) error {
	_, err := c.call(ctx, launcher.Request{Verb: launcher.Freeze, IDs: ids, Deadline: answerWithin(ctx)})
	return err
}

// Thaw lets frozen sandboxes go on.
func (c *Client) Thaw(ctx context.Context, ids ...string) error {
	_, err := c.call(ctx, launcher.Request{Verb: launcher.Thaw, IDs: ids, Deadline: answerWithin(ctx)})
	return err
}

// List reports every sandbox of this node, ordered by id.
func (c *Client) List(ctx context.Context) ([]launcher.Sandbox, error) {
	reply, err := c.call(ctx, launcher.Request{Verb: launcher.List})
	if err != nil {
		return nil, err
	}
	return reply.Sandboxes, nil
}

// Open takes away the marks of jobs whose gates have shut the node, and returns the jobs for which it is still shut.
func (c *Client) Open(ctx context.Context, jobs ...uint32) ([]uint32, error) {
	reply, err := c.call(ctx, launcher.Request{Verb: launcher.Open, Jobs: jobs})
	return reply.Shut, err
}
