package client

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client/dispatch"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// Conn is an open data path to one executor.
type Conn interface {
	// Invoke runs the function on input and writes its result. It returns the result's length.
	Invoke(ctx context.Context, input, result []byte, timeout time.Duration) (int, error)
	// Slots is the number of invocations that may be in flight at a time.
	Slots() int
	// Gone is closed when the executor is.
	Gone() <-chan struct{}
	// Err says why, once Gone is closed.
	Err() error
	Close() error
}

// Connector opens the data path to an executor and carries the code there.
type Connector func(ctx context.Context, e *api.Executor, f *Function, p Path) (Conn, error)

// Path is what a lease wants of its data paths.
type Path struct {
	Buffer uint64        // bytes of the largest input or result
	Spin   time.Duration // as TaskOptions has it
}

// departure is the cause with which an executor's context ends: the broker says that it is gone.
type departure struct {
	reason api.EndReason
	detail string
}

func (d *departure) Error() string {
	return "executor gone: " + reasonAndDetail(d.reason, d.detail)
}

// classify says what an attempt's error means for the task. cause is why the executor's context ended, nil while it lives.
func classify(err, cause error) dispatch.Outcome {
	var left *departure
	var function *FunctionError
	var gone *GoneError
	var refused *RefusedError
	switch {
	case err == nil:
		return dispatch.Succeeded
	case errors.As(err, &function) && function.Signal != int(syscall.SIGKILL):
		return dispatch.FunctionFailed
	case errors.As(err, &gone) && !gone.Began:
		return dispatch.Returned
	case errors.As(cause, &left):
		return left.outcome()
	case function != nil:
		return dispatch.Killed // an eviction kills the function too, and its executor may live to tell
	case errors.As(err, &gone) && strings.HasPrefix(gone.Reason, "evicted"):
		return dispatch.Evicted
	case errors.As(err, &refused), errors.Is(err, fabric.ErrClosed):
		return dispatch.Returned
	}
	return dispatch.ExecutorFailed
}

func (d *departure) outcome() dispatch.Outcome {
	if d.reason == api.EndReason_EXECUTOR_FAILED {
		return dispatch.ExecutorFailed
	}
	return dispatch.Evicted // by a job, an operator, a lost node: nothing that the task can have caused
}
