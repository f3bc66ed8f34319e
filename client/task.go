package client

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
)

// Task is one invocation to be made.
type Task struct {
	Name string // for people, such as the input's file name
	// Load returns the input. It is called when an executor is free for the task, and again after an eviction.
	Load func() ([]byte, error)
	// InPlace, when set, stands instead of Load, and the task's Output is empty.
	InPlace *InPlace
}

// Bytes is a task whose input is at hand.
func Bytes(name string, input []byte) Task {
	return Task{Name: name, Load: func() ([]byte, error) { return input, nil }}
}

// Attempt is one run of a task.
type Attempt struct {
	Executor   string
	Node       string
	Start, End time.Time
	Err        error // nil for success
}

// Result is how a task ended: with Err nil, or finally.
type Result struct {
	Index    uint64 // of the task in its lease, from 0 in the order of submission; "<lease>.<index>" names it
	Name     string
	Output   []byte
	Err      error
	Attempts []Attempt
}

// Call is a task in flight.
type Call struct {
	result Result
	load   func() ([]byte, error)
	place  *InPlace        // instead of load
	ctx    context.Context // bounds the whole task, as a request's does
	done   chan struct{}
	finish sync.Once
	stop   func() bool // ends the watch on ctx
	then   func(*Result)
}

// Done is closed when the task has ended.
func (c *Call) Done() <-chan struct{} { return c.done }

// Result waits for the task's end and returns its output or its final error.
func (c *Call) Result() ([]byte, error) {
	<-c.done
	return c.result.Output, c.result.Err
}

// Outcome waits for the task's end and tells all about it.
func (c *Call) Outcome() Result {
	<-c.done
	return c.result
}

// end delivers the outcome, once.
func (c *Call) end(output []byte, err error) {
	c.finish.Do(func() {
		c.result.Output, c.result.Err = output, err
		if c.stop != nil {
			c.stop()
		}
		close(c.done)
		if c.then != nil {
			c.then(&c.result)
		}
	})
}

func (r *Result) record(outcome api.TaskRecord_Outcome) *api.TaskRecord {
	record := &api.TaskRecord{Index: r.Index, Name: truncate(r.Name, 256), Outcome: outcome}
	attempts := r.Attempts
	if len(attempts) > maxAttempts {
		attempts = attempts[len(attempts)-maxAttempts:]
	}
	for _, a := range attempts {
		attempt := &api.TaskRecord_Attempt{Executor: a.Executor, Node: a.Node, Start: timestamppb.New(a.Start), End: timestamppb.New(a.End)}
		if a.Err != nil {
			attempt.Error = truncate(a.Err.Error(), 512)
		}
		record.Attempts = append(record.Attempts, attempt)
	}
	return record
}

// maxAttempts bounds the attempts that a task's record carries to the broker; the latest are kept.
const maxAttempts = 16
