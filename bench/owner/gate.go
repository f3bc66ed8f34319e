package owner

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

// firstJob is the number of the first job that a measurement makes up. Slurm's end below 1<<26.
const firstJob = 0x7f000000

// answerTime bounds one conversation; the real gate gives up long before.
const answerTime = 5 * time.Second

// gateway speaks the gate's protocol to one agent.
type gateway struct {
	socket string
	node   string // "" where the agent has not to check it
	job    uint32 // the last one that was made up
}

// trip is what one claim cost.
type trip struct {
	acked, done time.Duration
	evicted     int
}

// claim claims the whole node for a job of its own number, as a gate that knows no cores does.
func (g *gateway) claim() (trip, error) {
	if g.job < firstJob {
		g.job = firstJob
	}
	g.job++
	f := gate.Frame{Kind: gate.Claim, Job: g.job, Step: 0xfffffffc, MiB: gate.MemoryUnknown, Node: g.node}
	return g.ask(f)
}

// release says that the last job has left.
func (g *gateway) release() error {
	_, err := g.ask(gate.Frame{Kind: gate.Release, Job: g.job, Step: 0xfffffffe, Node: g.node})
	return err
}

func (g *gateway) ask(f gate.Frame) (trip, error) {
	frame, err := f.Append(nil)
	if err != nil {
		return trip{}, err
	}
	var t trip
	begin := time.Now()
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		return t, fmt.Errorf("ask the agent: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(begin.Add(answerTime))
	if _, err := conn.Write(frame); err != nil {
		return t, fmt.Errorf("ask the agent at %s: %w", g.socket, err)
	}
	for {
		answer, err := gate.Read(conn)
		if err != nil {
			return t, fmt.Errorf("no answer from the agent at %s: %w", g.socket, err)
		}
		switch answer.Kind {
		case gate.Ack:
			t.acked = time.Since(begin)
		case gate.Done:
			t.done, t.evicted = time.Since(begin), int(answer.Evicted)
			return t, nil
		default:
			return t, fmt.Errorf("agent at %s could not free the node: answer %d", g.socket, answer.Kind)
		}
	}
}

// agentPID is the process that listens on the agent's socket, in this pid namespace.
func agentPID(socket string) (int, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, fmt.Errorf("find the agent: %w", err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var opt error
	if err := raw.Control(func(fd uintptr) { cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if opt != nil {
		return 0, fmt.Errorf("find the agent behind %s: %w", socket, opt)
	}
	return int(cred.Pid), nil
}
