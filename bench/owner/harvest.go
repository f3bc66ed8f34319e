package owner

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/client"
)

// returnTime is how long evicted executors may take to be replaced.
const returnTime = time.Minute

// executorsOwn is what an executor may use beside what it is told to hold.
const executorsOwn = 64 << 20

// harvest is a lease whose executors fill the node, and come back after each eviction.
type harvest struct {
	lease     *client.Lease
	executors int
	each      uint64 // bytes that each executor holds
	expected  uint64 // evictions that the jobs so far have made at least
}

// acquire leases executors of one core each. resident is what all of them hold together, 0 for nothing beside themselves.
func acquire(ctx context.Context, c *client.Client, f *client.Function, executors int, resident uint64) (*harvest, error) {
	each := resident / uint64(executors)
	lease, err := c.Acquire(ctx, client.Request{
		Function: f, Executors: executors, Memory: each + executorsOwn, Buffer: 4 << 10, Tasks: client.TaskOptions{Depth: 1},
	})
	if err != nil {
		return nil, err
	}
	return &harvest{lease: lease, executors: executors, each: each}, nil
}

func (h *harvest) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), returnTime)
	defer cancel()
	return h.lease.Release(ctx)
}

// fill waits until every executor serves, and holds its memory.
func (h *harvest) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, returnTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for h.lease.Counts().Executors < h.executors {
		select {
		case <-h.lease.Ended():
			return fmt.Errorf("lease %d ended: %s", h.lease.ID(), h.lease.Status().GetDetail())
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d executors serve after %v; is the node idle, and the only one that lends? %s",
				h.lease.Counts().Executors, h.executors, returnTime, h.lease.Status().GetDetail())
		case <-tick.C:
		}
	}
	if h.each == 0 {
		return nil
	}
	return h.touch(ctx)
}

// touch calls the function until each executor has run it. Whoever has its memory already answers at once.
func (h *harvest) touch(ctx context.Context) error {
	input := binary.LittleEndian.AppendUint64(nil, h.each)
	full := map[string]bool{}
	for len(full) < h.executors {
		calls := make([]*client.Call, 2*h.executors)
		for i := range calls {
			calls[i] = h.lease.Start(ctx, client.Bytes("", input))
		}
		for _, call := range calls {
			r := call.Outcome()
			if r.Err != nil {
				return fmt.Errorf("make an executor hold %d bytes: %w", h.each, r.Err)
			}
			if len(r.Output) != 8 || binary.LittleEndian.Uint64(r.Output) != h.each {
				return fmt.Errorf("make an executor hold %d bytes: function %s answers %x", h.each, h.lease.Status().GetRequest().GetFunction().GetName(), r.Output)
			}
			full[r.Attempts[len(r.Attempts)-1].Executor] = true
		}
	}
	return nil
}
