package account

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestGroups(t *testing.T) {
	many := make([]uint32, Most+1)
	for i := range many {
		many[i] = uint32(i + 1)
	}
	for name, c := range map[string]struct {
		has  []uint32
		fail error
		want []uint32
		err  string
	}{
		"several, in order, once": {has: []uint32{30, 10, 20, 10}, want: []uint32{10, 20, 30}},
		"never root's":            {has: []uint32{0, 10, ^uint32(0)}, want: []uint32{10}},
		"unknown user":            {},
		"as many as fit":          {has: many[:Most], want: many[:Most]},
		"too many":                {has: many, err: "257 groups"},
		"name service fails":      {fail: errors.New("no LDAP"), err: "no LDAP"},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Names{Lookup: func(uint32) ([]uint32, error) { return c.has, c.fail }}
			got, err := n.Groups(t.Context(), 1000, time.Unix(0, 0))
			if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, %v; want %v, %q", got, err, c.want, c.err)
			}
		})
	}
}

// TestAskedOnce: answers count for a while, errors do not, and a name service that hangs costs its askers their own time alone.
func TestAskedOnce(t *testing.T) {
	var asked atomic.Int32
	hang := make(chan struct{})
	n := &Names{Lookup: func(uid uint32) ([]uint32, error) {
		asked.Add(1)
		if uid == 2 {
			<-hang
		}
		if uid == 3 {
			return nil, errors.New("down")
		}
		return []uint32{uid + 10}, nil
	}}
	begin := time.Unix(100, 0)
	for _, after := range []time.Duration{0, time.Second, fresh - 1} {
		if got, err := n.Groups(t.Context(), 1, begin.Add(after)); err != nil || !slices.Equal(got, []uint32{11}) {
			t.Errorf("after %v: %v, %v", after, got, err)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("asked %d times within %v", got, fresh)
	}
	_, _ = n.Groups(t.Context(), 1, begin.Add(fresh))
	for range 2 {
		_, _ = n.Groups(t.Context(), 3, begin)
	}
	if got := asked.Load(); got != 4 {
		t.Errorf("asked %d times, want 4", got)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := n.Groups(ctx, 2, begin); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hanging: %v", err)
		}
		cancel()
	}
	if got := asked.Load(); got != 5 {
		t.Errorf("a name service that hangs is asked %d times", got-4)
	}
	close(hang)
	if got, err := n.Groups(t.Context(), 2, begin); err != nil || !slices.Equal(got, []uint32{12}) {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}

// TestThisHost asks the real name service about ourselves and about nobody.
func TestThisHost(t *testing.T) {
	n := &Names{}
	if _, err := n.Groups(t.Context(), uint32(os.Getuid()), time.Now()); err != nil {
		t.Error(err)
	}
	if got, err := n.Groups(t.Context(), 64322, time.Now()); err != nil || len(got) > 0 {
		t.Errorf("a user who is not there: %v, %v", got, err)
	}
}
