package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/fabric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anyFunction = &Function{Name: "libf.so", Symbol: "f", Library: []byte("code")}

func acquire(t *testing.T, c *Client, r Request) *Lease {
	t.Helper()
	r.Function = anyFunction
	l, err := c.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release(context.Background()) })
	return l
}

func reverse(input []byte) ([]byte, error) {
	out := make([]byte, len(input))
	for i, b := range input {
		out[len(input)-1-i] = b
	}
	return out, nil
}

func TestInvokeWaitsForAnExecutor(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{Executors: 1})
	call := l.Start(t.Context(), Bytes("greeting", []byte("abc")))
	eventually(t, "task waits", func() bool { return l.Counts().Waiting == 1 })
	w.arrive()
	output, err := call.Result()
	if err != nil || string(output) != "cba" {
		t.Fatalf("got %q, %v", output, err)
	}
}

func TestEvictedIsNotFailed(t *testing.T) {
	for name, silent := range map[string]bool{"broker tells": false, "executor alone tells": true} {
		t.Run(name, func(t *testing.T) {
			began := make(chan struct{}, 2)
			first := make(chan struct{})
			w, c := newWorld(t, func(input []byte) ([]byte, error) {
				began <- struct{}{}
				if w := len(began); w == 1 {
					<-first
				}
				return reverse(input)
			})
			w.silent = silent
			l := acquire(t, c, Request{Tasks: TaskOptions{ExecutorFailures: 1}})
			victim := w.arrive()
			call := l.Start(t.Context(), Bytes("", []byte("abc")))
			eventually(t, "task runs", func() bool { return len(began) == 1 })
			w.remove(victim, api.EndReason_EVICTED, "evicted: job 12 needed cores 0-3")
			w.arrive()
			output, err := call.Result()
			close(first)
			if err != nil || string(output) != "cba" {
				t.Fatalf("got %q, %v", output, err)
			}
			if n := len(call.Outcome().Attempts); n != 2 {
				t.Errorf("%d attempts, want 2", n)
			}
		})
	}
}

func TestFunctionErrorIsFinal(t *testing.T) {
	want := &FunctionError{Detail: "bad picture"}
	w, c := newWorld(t, func([]byte) ([]byte, error) { return nil, want })
	l := acquire(t, c, Request{})
	w.arrive()
	_, err := l.Invoke(t.Context(), nil)
	var got *FunctionError
	if !errors.As(err, &got) || got.Detail != want.Detail {
		t.Fatalf("got %v", err)
	}
}

// TestKilledByAnEviction is the race in which the executor tells of its worker's death before it dies itself.
func TestKilledByAnEviction(t *testing.T) {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	w, c := newWorld(t, func(input []byte) ([]byte, error) {
		select {
		case <-first:
			return nil, &FunctionError{Kind: fabric.Crashed, Signal: 9}
		default:
			return reverse(input)
		}
	})
	l := acquire(t, c, Request{})
	w.arrive()
	if output, err := l.Invoke(t.Context(), []byte("abc")); err != nil || string(output) != "cba" {
		t.Errorf("got %q, %v", output, err)
	}
}

func TestAlwaysKilled(t *testing.T) {
	w, c := newWorld(t, func([]byte) ([]byte, error) { return nil, &FunctionError{Kind: fabric.Crashed, Signal: 9} })
	l := acquire(t, c, Request{})
	w.arrive()
	if _, err := l.Invoke(t.Context(), nil); !errors.Is(err, &FunctionError{Kind: fabric.Crashed}) {
		t.Errorf("got %v", err)
	}
}

func TestExecutorFailuresAreBounded(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	running := make(chan struct{}, 16)
	w, c := newWorld(t, func([]byte) ([]byte, error) { running <- struct{}{}; <-block; return nil, nil })
	l := acquire(t, c, Request{Tasks: TaskOptions{ExecutorFailures: 2}})
	call := l.Start(t.Context(), Bytes("", nil))
	for range 2 {
		id := w.arrive()
		<-running
		w.remove(id, api.EndReason_EXECUTOR_FAILED, "out of memory")
	}
	_, err := call.Result()
	var lost *LostError
	if !errors.As(err, &lost) || lost.Attempts != 2 {
		t.Fatalf("got %v", err)
	}
}

func TestInputErrors(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{Buffer: 8})
	w.arrive()
	var input *InputError
	if _, err := l.Invoke(t.Context(), make([]byte, 9)); !errors.As(err, &input) {
		t.Errorf("too large an input: %v", err)
	}
	call := l.Start(t.Context(), Task{Load: func() ([]byte, error) { return nil, errors.New("no such file") }})
	if _, err := call.Result(); !errors.As(err, &input) {
		t.Errorf("unreadable input: %v", err)
	}
	if _, err := l.Invoke(t.Context(), make([]byte, 8)); err != nil {
		t.Errorf("input of the buffer's size: %v", err)
	}
}

func TestLeaseEnds(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{})
	call := l.Start(t.Context(), Bytes("", nil))
	w.end(api.EndReason_JOB_ENDED, "job 7 is over")
	_, err := call.Result()
	var ended *EndedError
	if !errors.As(err, &ended) || ended.Reason != api.EndReason_JOB_ENDED || !errors.Is(err, ErrEnded) {
		t.Fatalf("got %v", err)
	}
	<-l.Ended()
	if _, err := l.Invoke(t.Context(), nil); !errors.Is(err, ErrEnded) {
		t.Errorf("a task after the end: %v", err)
	}
}

// TestReleaseWithoutBroker: a broker that is being restarted is asked again; for one that stays away the error says when the lease ends.
func TestReleaseWithoutBroker(t *testing.T) {
	w, c := newWorld(t, reverse)
	w.dead = 3
	if err := acquire(t, c, Request{}).Release(t.Context()); err != nil || w.released != 4 {
		t.Errorf("after %d attempts: %v", w.released, err)
	}
	w.dead = 1 << 20
	began := time.Now()
	err := acquire(t, c, Request{TTL: 7 * time.Second}).Release(t.Context())
	if took := time.Since(began); !errors.Is(err, ErrUnreachable) || took > 2*releasePatience {
		t.Errorf("after %v: %v", took, err)
	}
	if want := "it ends by itself, at the latest 7s after the broker is there again"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say: %s", err, want)
	}
	w.mu.Lock()
	w.dead = 0
	w.mu.Unlock()
}

func TestReleaseFailsWhatRuns(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	w, c := newWorld(t, func([]byte) ([]byte, error) { <-block; return nil, nil })
	l := acquire(t, c, Request{})
	w.arrive()
	running, waiting := l.Start(t.Context(), Bytes("", nil)), l.Start(t.Context(), Bytes("", nil))
	eventually(t, "executor connected", func() bool { return l.Counts().Executors == 1 })
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, call := range []*Call{running, waiting} {
		if _, err := call.Result(); !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
	}
}

func TestCancelledTask(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	w, c := newWorld(t, func([]byte) ([]byte, error) { <-block; return nil, nil })
	l := acquire(t, c, Request{})
	ctx, cancel := context.WithCancel(t.Context())
	waiting := l.Start(ctx, Bytes("", nil))
	cancel()
	if _, err := waiting.Result(); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v", err)
	}
	w.arrive()
	ctx, cancel = context.WithCancel(t.Context())
	running := l.Start(ctx, Bytes("", nil))
	eventually(t, "runs", func() bool { return l.Counts().Executors == 1 && l.Counts().Waiting == 0 })
	cancel()
	if _, err := running.Result(); !errors.Is(err, context.Canceled) {
		t.Errorf("running: %v", err)
	}
}

func TestAcquireErrors(t *testing.T) {
	tests := map[string]struct {
		code codes.Code
		want error
	}{
		"never":       {codes.FailedPrecondition, ErrNoCapacity},
		"denied":      {codes.PermissionDenied, ErrDenied},
		"unknown":     {codes.Unauthenticated, ErrDenied},
		"unreachable": {codes.Unavailable, ErrUnreachable},
		"invalid":     {codes.InvalidArgument, ErrInvalid},
		"not now":     {codes.Aborted, ErrNotNow},
		"later":       {codes.Aborted, ErrUnreachable},
	}
	w, c := newWorld(t, reverse)
	for name, test := range tests {
		w.refuse = status.Error(test.code, "because")
		if _, err := c.Acquire(t.Context(), Request{Function: anyFunction}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestRenewsAndSurvivesABrokenStream(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{TTL: 300 * time.Millisecond})
	w.arrive()
	eventually(t, "one executor", func() bool { return l.Counts().Executors == 1 })
	w.mu.Lock()
	w.publish(nil)
	w.mu.Unlock()
	w.arrive()
	eventually(t, "two executors after the stream broke", func() bool { return l.Counts().Executors == 2 })
	eventually(t, "renewals", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.renewals > 2 })
}

// An executor that is evicted while the broker is away costs nothing, however often the dead address is tried: the broker's next
// snapshot does not name it.
func TestEvictedWhileTheBrokerIsAway(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{Tasks: TaskOptions{ExecutorFailures: 1}})
	id := w.arrive()
	eventually(t, "one executor", func() bool { return l.Counts().Executors == 1 })
	w.mu.Lock()
	w.away = true
	w.silent = true
	w.publish(nil)
	w.mu.Unlock()
	w.remove(id, api.EndReason_EVICTED, "connection lost")
	call := l.Start(t.Context(), Bytes("", []byte("abc")))
	eventually(t, "more attempts than an executor gets that the broker calls alive", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.refused > 5 })
	w.mu.Lock()
	w.away = false
	w.mu.Unlock()
	w.arrive()
	if out, err := call.Result(); err != nil || string(out) != "cba" {
		t.Errorf("got %q, %v", out, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) != 1 {
		t.Errorf("%d executors are known, want the living one", len(l.known))
	}
}

func TestReportsWhatBecameOfTasks(t *testing.T) {
	w, c := newWorld(t, func(input []byte) ([]byte, error) {
		if len(input) == 0 {
			return nil, &FunctionError{Detail: "empty"}
		}
		return input, nil
	})
	l := acquire(t, c, Request{})
	w.arrive()
	for _, input := range []string{"a", "", "b"} {
		_, _ = l.Invoke(t.Context(), []byte(input))
	}
	w.remove(w.anyExecutor(), api.EndReason_EVICTED, "evicted")
	cut := l.Start(t.Context(), Bytes("", nil)) // cut off by the release: counted as neither
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-cut.Done()
	var ok, failed uint64
	var records []*api.TaskRecord
	for _, r := range w.reports {
		ok, failed, records = ok+r.Ok, failed+r.Failed, append(records, r.Tasks...)
	}
	if ok != 2 || failed != 1 || len(records) != 1 || records[0].Index != 1 || records[0].Outcome != api.TaskRecord_FAILED {
		t.Errorf("ok %d, failed %d, records %v", ok, failed, records)
	}
}

func numbers(n int) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		for i := range n {
			if !yield(Bytes(fmt.Sprint(i), binary.LittleEndian.AppendUint32(nil, uint32(i)))) {
				return
			}
		}
	}
}

// TestMapUnderFaults takes executors away at random while a map runs: each task ends exactly once, with its own right result.
func TestMapUnderFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 200).Draw(rt, "tasks")
		executors := rapid.IntRange(1, 5).Draw(rt, "executors")
		faults := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 12).Draw(rt, "faults")
		t.Run("", func(t *testing.T) { mapUnderFaults(t, n, executors, faults) })
	})
}

func mapUnderFaults(t *testing.T, n, executors int, faults []int) {
	steps := make(chan struct{}, n*4+64)
	w, c := newWorld(t, func(input []byte) ([]byte, error) {
		steps <- struct{}{}
		return reverse(input)
	})
	l := acquire(t, c, Request{Executors: executors})
	for range executors {
		w.arrive()
	}
	stop := make(chan struct{})
	faulted := make(chan struct{})
	go func() {
		defer close(faulted)
		for _, fault := range faults {
			select {
			case <-steps:
			case <-stop:
				return
			}
			w.strike(fault)
			w.arrive()
		}
	}()
	seen := map[uint64]int{}
	err := l.Map(t.Context(), numbers(n), func(r Result) {
		seen[r.Index]++
		want, _ := reverse(binary.LittleEndian.AppendUint32(nil, uint32(r.Index)))
		if r.Err != nil || string(r.Output) != string(want) {
			t.Errorf("task %d: %v, %v", r.Index, r.Output, r.Err)
		}
	})
	close(stop)
	<-faulted
	if err != nil {
		t.Error(err)
	}
	for i := range uint64(n) {
		if seen[i] != 1 {
			t.Errorf("task %d has %d outcomes", i, seen[i])
		}
	}
}

func (w *world) strike(fault int) {
	switch fault {
	case 0:
		w.remove(w.anyExecutor(), api.EndReason_EVICTED, "evicted: job 1 needed cores 0-1")
	case 1:
		w.remove(w.anyExecutor(), api.EndReason_EXECUTOR_FAILED, "killed")
	case 2:
		w.remove(w.anyExecutor(), api.EndReason_NODE_LOST, "connection reset by peer")
	case 3:
		w.mu.Lock()
		w.publish(nil)
		w.mu.Unlock()
	}
}

func TestMapStopsWithItsContext(t *testing.T) {
	w, c := newWorld(t, reverse)
	l := acquire(t, c, Request{})
	w.arrive()
	ctx, cancel := context.WithCancel(t.Context())
	outcomes, taken := 0, 0
	err := l.Map(ctx, func(yield func(Task) bool) {
		for t := range numbers(1 << 20) {
			if taken++; !yield(t) {
				return
			}
		}
	}, func(Result) {
		if outcomes++; outcomes == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || taken == 1<<20 || outcomes < taken-1 {
		t.Errorf("%v; %d taken, %d outcomes", err, taken, outcomes)
	}
}
