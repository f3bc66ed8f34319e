package executor

import (
	"context"
	"net"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

const (
	redialFirst = 20 * time.Millisecond
	redialMost  = time.Second
)

// What the agent's connection tells the supervisor.
type (
	agentUp   struct{ conn net.Conn }
	agentDown struct{}
)

// followAgent keeps a connection to the agent, says Hello on each and posts what comes.
func followAgent(ctx context.Context, path, id string, post func(any)) {
	wait := redialFirst
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			wait = redialFirst
			serveAgent(ctx, conn, id, post)
			post(agentDown{})
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, redialMost)
	}
}

func serveAgent(ctx context.Context, conn net.Conn, id string, post func(any)) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if jsonframe.Write(conn, wire.FromExecutor{Hello: &wire.Hello{ID: id}}) != nil {
		return
	}
	post(agentUp{conn})
	for {
		var frame wire.FromAgent
		if jsonframe.Read(conn, &frame) != nil {
			return
		}
		if frame.Prepare != nil {
			post(frame.Prepare)
		}
		if frame.Assign != nil {
			post(frame.Assign)
		}
		if frame.Revoke != nil {
			post(frame.Revoke)
		}
	}
}
