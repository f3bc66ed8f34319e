package hostile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// attack is one row: what is done to a node, and what whoever did it is told. Exactly one of result, failure and act is set.
type attack struct {
	name    string
	library string        // that the lease is for; empty means functions.so
	input   string        // of the call
	timeout time.Duration // of the call
	result  string        // with which the call ends
	failure error         // by errors.Is, with which the call or the connection ends
	says    string        // by the error, or by the result of an act
	act     func(l *lease) error
}

const (
	short = 500 * time.Millisecond
	long  = 20 * time.Second
	// loading is what a library's constructors may take: long enough for sound ones on a busy machine, where functions come last.
	loading = 8 * time.Second
)

func crashed(by syscall.Signal) error { return &signalled{by} }

// signalled matches a function that was ended by that signal.
type signalled struct{ by syscall.Signal }

func (s *signalled) Error() string { return "function ended by " + s.by.String() }

// tells says whether err is what the row wants.
func (a *attack) tells(err error) bool {
	var f *fabric.FunctionError
	if by, ok := errors.AsType[*signalled](a.failure); ok {
		return errors.As(err, &f) && f.Kind == fabric.Crashed && f.Signal == int(by.by)
	}
	return errors.Is(err, a.failure) && strings.Contains(err.Error(), a.says)
}

var (
	exited       = &fabric.FunctionError{Kind: fabric.Exited}
	overdue      = &fabric.FunctionError{Kind: fabric.DeadlineExceeded}
	ended        = &fabric.FunctionError{Kind: fabric.Crashed}
	oversized    = &fabric.FunctionError{Kind: fabric.ResultTooLarge}
	notLoaded    = &fabric.FunctionError{Kind: fabric.LoadFailed}
	tooMuchSpace = "exceeding the executor's memory"
)

func functions() []attack {
	return []attack{
		{name: "fork bomb", input: "forks", timeout: short, failure: overdue},
		{name: "thread bomb", input: "threads", timeout: long, result: "bounded"},
		{name: "memory bomb", input: "memory", timeout: long, failure: ended, says: tooMuchSpace},
		{name: "memory in memfds", input: "memfds", timeout: long, failure: ended, says: tooMuchSpace},
		{name: "first to go when memory is short", input: "score", timeout: long, result: "1000"},
		{name: "descriptors", input: "descriptors", timeout: long, result: "EMFILE"},
		{name: "disk in /tmp", input: "disk", timeout: long, result: "full"},
		{name: "inodes in /tmp", input: "inodes", timeout: long, result: "full"},
		{name: "shared memory that stays", input: "residue", timeout: long, result: "refused"},
		{name: "endless loop", input: "loop", timeout: short, failure: overdue},
		{name: "endless loop, deaf to signals", input: "deaf", timeout: short, failure: overdue},
		{name: "stops itself", input: "stopped", timeout: short, failure: overdue},
		{name: "stack overflow", input: "stack", timeout: long, failure: crashed(syscall.SIGSEGV)},
		{name: "SIGSEGV", input: "segv", timeout: long, failure: crashed(syscall.SIGSEGV)},
		{name: "abort", input: "abort", timeout: long, failure: crashed(syscall.SIGABRT)},
		{name: "exit(0) in the middle", input: "exit", timeout: long, failure: exited, says: "exit status 0"},
		{name: "closes every descriptor", input: "closes", timeout: long, result: "closed"},
		{name: "kill(-1)", input: "killall", timeout: long, result: "alone"},
		{name: "signals to the executor", input: "signals", timeout: long, result: "parent 1"},
		{name: "leaves a daemon", input: "daemonize", timeout: long, result: "left one"},
		{name: "becomes another program", input: "becomes", timeout: short, failure: overdue},
		{name: "raw system calls", input: "calls", timeout: long, result: "refused"},
		{name: "32-bit system calls", input: "int80", timeout: long, failure: crashed(syscall.SIGSYS)},
		{name: "x32 system calls", input: "x32", timeout: long, failure: crashed(syscall.SIGSYS)},
		{name: "new namespaces", input: "namespaces", timeout: long, result: "refused"},
		{name: "digs in /proc, /sys and /dev", input: "digs", timeout: long, result: "nothing"},
		{name: "writes to the root", input: "writes", timeout: long, result: "nothing"},
		{name: "opens sockets", input: "sockets", timeout: long, result: "refused"},
		{name: "overwrites its executor's state", input: "scribble gleaner-state", timeout: short, failure: ended, says: "wrote over its executor's state"},
		{name: "overwrites its caller's arena", input: "scribble gleaner-arena", timeout: short, act: scribbles},
		{name: "claims 4 GiB of result", input: "gigantic", timeout: long, failure: oversized},
	}
}

// libraries are bad before a function runs. A constructor has as long as loading says.
func libraries() []attack {
	return []attack{
		{name: "library cut short", library: "cut.so", failure: notLoaded, says: "cut short"},
		{name: "library of noise", library: "noise.so", failure: notLoaded, says: "no shared library"},
		{name: "library of text", library: "text.so", failure: notLoaded, says: "no shared library"},
		{name: "library with a header alone", library: "header.so", failure: notLoaded, says: "cut short"},
		{name: "library of zeros behind its header", library: "hollow.so", failure: notLoaded},
		{name: "library for another machine", library: "foreign.so", failure: notLoaded, says: "is for EM_AARCH64"},
		{name: "constructor that hangs", library: "hangs.so", timeout: loading, failure: notLoaded, says: "did not return within 8s"},
		{name: "constructor that kills", library: "kills.so", failure: ended, says: "while the library was being loaded"},
		{name: "constructor that faults", library: "faults.so", failure: ended, says: "while the library was being loaded"},
		{name: "constructor that exits", library: "exits.so", failure: exited, says: "while the library was being loaded"},
		{name: "constructor that forks for ever", library: "forks.so", timeout: loading, failure: notLoaded, says: "did not return within 8s"},
	}
}

// TestHostile makes one attack after the other beside a neighbour, who must not notice.
func TestHostile(t *testing.T) {
	n := newNode(t)
	beside := newNeighbour(n)
	rows := append(functions(), libraries()...)
	rows = append(rows, callers(beside)...)
	for _, a := range rows {
		t.Run(a.name, func(t *testing.T) {
			n.t = t
			defer func() { n.t = beside.t }()
			files, began := descriptors(), beside.mark()
			a.run(n)
			beside.answers(t, began)
			n.await("this process has no more descriptors than before", func() bool { return descriptors() <= files })
		})
	}
	t.Logf("%d attacks; the latest answer came %v after its deadline; the neighbour was answered %d times, the slowest %v",
		len(rows), n.latest.Round(time.Millisecond), beside.mark(), beside.worst().Round(time.Millisecond))
}

func (a *attack) run(n *node) {
	library := a.library
	if library == "" {
		library = "functions.so"
	}
	l := n.lease(library)
	defer func() {
		if x := l.end(); x.Signal != int(syscall.SIGKILL) {
			n.t.Errorf("the executor had ended already: %+v", x)
		}
	}()
	if a.act != nil {
		if err := a.act(l); err != nil {
			n.t.Error(err)
		}
		return
	}
	begun := time.Now()
	got, err := l.call(a.input, a.timeout)
	n.measure(time.Since(begun), a.timeout)
	if a.failure == nil && (err != nil || got != a.result) || a.failure != nil && !a.tells(err) {
		n.t.Errorf("got %q, %v; want %q, %v %s", got, err, a.result, a.failure, a.says)
	}
	if a.library == "" {
		l.serves()
	}
}

// call connects, calls and closes.
func (l *lease) call(input string, timeout time.Duration) (string, error) {
	c, err := l.dial(l.sign(l.claims(), l.n.key), "ring")
	if err != nil {
		return "", err
	}
	defer closeQuietly(c)
	return invoke(c, input, timeout)
}

func invoke(c *fabric.Conn, input string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+late)
	defer cancel()
	result := make([]byte, 4096)
	n, err := c.Invoke(ctx, []byte(input), result, timeout)
	return string(result[:n]), err
}

// serves checks that the lease goes on.
func (l *lease) serves() {
	l.n.t.Helper()
	if got, err := l.call("echo again", long); err != nil || got != "echo again" {
		l.n.t.Errorf("the lease serves no more: %q, %v", got, err)
	}
}

// measure holds an answer against its deadline. What has a long one ends by itself.
func (n *node) measure(took, deadline time.Duration) {
	n.t.Helper()
	if deadline == long {
		deadline = 0
	}
	n.latest = max(n.latest, took-deadline)
	if took > deadline+late {
		n.t.Errorf("the answer came %v after its deadline", took-deadline)
	}
}

// scribbles has its own memory overwritten by the function: any answer does, but one in time and never a result that is none.
func scribbles(l *lease) error {
	begun := time.Now()
	got, err := l.call("scribble gleaner-arena", short)
	l.n.measure(time.Since(begun), short)
	if err == nil && got != "done" && !strings.Contains(got, "\xff") {
		return fmt.Errorf("the result is %q", got)
	}
	l.serves()
	return nil
}

// neighbour is another user's lease, which is called all the time.
type neighbour struct {
	*lease
	t  *testing.T
	mu sync.Mutex

	calls   int
	slowest time.Duration
	failure error
}

func newNeighbour(n *node) *neighbour {
	n.t.Helper()
	b := &neighbour{lease: n.lease("functions.so"), t: n.t}
	c := b.connect("ring")
	if got, err := invoke(c, "secret", long); err != nil || got != "kept" {
		n.t.Fatalf("the neighbour keeps no secret: %q, %v", got, err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				b.ask(c)
			}
		}
	}()
	n.t.Cleanup(func() {
		close(stop)
		<-done
		closeQuietly(c)
		n.t = b.t
		b.end()
	})
	return b
}

func (b *neighbour) ask(c *fabric.Conn) {
	begun := time.Now()
	got, err := invoke(c, "echo neighbour", long)
	if err == nil && got != "echo neighbour" {
		err = fmt.Errorf("the result is %q", got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	b.slowest = max(b.slowest, time.Since(begun))
	if b.failure == nil {
		b.failure = err
	}
}

func (b *neighbour) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

func (b *neighbour) worst() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.slowest
}

// answers checks that the neighbour was served since then, and is.
func (b *neighbour) answers(t *testing.T, since int) {
	t.Helper()
	during := b.mark() - since
	b.n.await("the neighbour is answered", func() bool { return b.mark() > since+during })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failure != nil {
		t.Errorf("the neighbour is disturbed: %v", b.failure)
		b.failure = nil
	}
	if during == 0 {
		t.Error("the neighbour was not answered during the attack")
	}
}
