// Package account tells which groups a user is in, as the site's name service has it on this node. The agent asks it before a sandbox is
// started, never the privileged launcher: name services run code of the site's and may take for ever.
package account

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// Most is how many supplementary groups a sandbox can have.
	Most = 256
	// fresh is how long an answer counts: a lease of many executors asks once.
	fresh = 30 * time.Second
)

// Names asks the name service and remembers its answers for a while. Its zero value is ready; its method may be called from many
// goroutines.
type Names struct {
	// Lookup gives a user's groups; nil means the host's name service.
	Lookup func(uid uint32) ([]uint32, error)

	mu    sync.Mutex
	known map[uint32]*answer
}

type answer struct {
	asked  time.Time
	done   chan struct{}
	groups []uint32
	err    error
}

// Groups returns the user's supplementary groups in order, without root's. A user whom the node does not know has none. It returns when
// ctx ends, whatever the name service does meanwhile.
func (n *Names) Groups(ctx context.Context, uid uint32, now time.Time) ([]uint32, error) {
	a := n.ask(uid, now)
	select {
	case <-a.done:
		return a.groups, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("groups of user %d: the name service does not answer: %w", uid, ctx.Err())
	}
}

// ask returns an answer that counts still or is awaited, and otherwise begins another.
func (n *Names) ask(uid uint32, now time.Time) *answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, a := range n.known {
		select {
		case <-a.done:
			if now.Sub(a.asked) >= fresh || a.err != nil {
				delete(n.known, id)
			}
		default: // one question at a time
		}
	}
	if a := n.known[uid]; a != nil {
		return a
	}
	a := &answer{asked: now, done: make(chan struct{})}
	if n.known == nil {
		n.known = map[uint32]*answer{}
	}
	n.known[uid] = a
	lookup := n.Lookup
	if lookup == nil {
		lookup = fromHost
	}
	go func() {
		defer close(a.done)
		a.groups, a.err = usable(lookup(uid))
	}()
	return a
}

// usable leaves out root's group, which no function has, and refuses more than a sandbox can hold.
func usable(groups []uint32, err error) ([]uint32, error) {
	groups = slices.DeleteFunc(slices.Clone(groups), func(g uint32) bool { return g == 0 || g == ^uint32(0) })
	slices.Sort(groups)
	groups = slices.Compact(groups)
	if len(groups) > Most {
		return nil, fmt.Errorf("the user is in %d groups; a sandbox takes at most %d", len(groups), Most)
	}
	return groups, err
}

func fromHost(uid uint32) ([]uint32, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if _, unknown := errors.AsType[user.UnknownUserIdError](err); unknown {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %d: %w", uid, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up the groups of %s: %w", u.Username, err)
	}
	var groups []uint32
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			groups = append(groups, uint32(g))
		}
	}
	return groups, nil
}
