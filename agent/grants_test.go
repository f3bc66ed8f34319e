package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

func TestGrants(t *testing.T) {
	site := Grants{Binds: []string{"/home", "/scratch/"}}
	for name, c := range map[string]struct {
		grants Grants
		start  *api.Start
		want   string
	}{
		"nothing asked":        {start: &api.Start{}},
		"no folder is granted": {start: bindStart("/home/me"), want: "below no folder only"},
		"below":                {grants: site, start: bindStart("/home/me/data")},
		"the folder itself":    {grants: site, start: bindStart("/home")},
		"below, with a slash":  {grants: site, start: bindStart("/scratch/me")},
		"beside":               {grants: site, start: bindStart("/homes/me"), want: "sandbox.binds"},
		"above":                {grants: site, start: bindStart("/"), want: "sandbox.binds"},
		"one of two":           {grants: site, start: bindStart("/home/me", "/etc"), want: `"/etc"`},
		"all of the node":      {grants: Grants{Binds: []string{"/"}}, start: bindStart("/etc/x")},
		"network":              {start: &api.Start{Network: true}, want: "sandbox.network"},
		"network granted":      {grants: Grants{Network: true}, start: &api.Start{Network: true}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.grants.check(c.start)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func bindStart(sources ...string) *api.Start {
	s := &api.Start{}
	for _, source := range sources {
		s.Binds = append(s.Binds, &api.Bind{Source: source, Target: "/data/in"})
	}
	return s
}

// TestOwnersIdentity: the launcher is told the groups that the name service has, and the binds that were asked for; without an answer
// nothing is started.
func TestOwnersIdentity(t *testing.T) {
	n := newNode(t)
	n.cfg.Grants = Grants{Binds: []string{"/home"}, Network: true}
	var down atomic.Bool
	n.cfg.Groups = func(_ context.Context, uid uint32, _ time.Time) ([]uint32, error) {
		if down.Load() {
			return nil, errors.New("no LDAP")
		}
		return []uint32{uid + 1, uid + 2}, nil
	}
	n.start()
	ask := start("7-1", 1, 64)
	ask.Binds = []*api.Bind{{Source: "/home/me", Target: "/data/in", Writable: true}}
	ask.Network = true
	n.ask(ask)
	n.waitFor("sandbox", func() bool { return n.sandbox("7-1") != nil })
	spec := n.sandbox("7-1").Spec
	if !slices.Equal(spec.Groups, []uint32{testUID + 1, testUID + 2}) || !slices.Equal(spec.Binds, []launcher.Bind{{Source: "/home/me", Target: "/data/in", Writable: true}}) {
		t.Errorf("spec %+v", spec)
	}
	f, err := n.dial("7-1").hear()
	if err != nil || f.Assign == nil || !f.Assign.Network {
		t.Errorf("assignment %+v, %v", f.Assign, err)
	}
	ask = start("7-2", 1, 64)
	ask.Binds = []*api.Bind{{Source: "/etc", Target: "/data/in"}}
	n.ask(ask)
	n.broker.await(t, "refusal", func(m *api.AgentMessage) bool {
		return m.GetEnded().GetId() == "7-2" && m.GetEnded().GetReason() == api.EndReason_REFUSED && strings.Contains(m.GetEnded().GetDetail(), "sandbox.binds")
	})
	down.Store(true)
	n.ask(start("7-3", 1, 64))
	n.broker.await(t, "failure", func(m *api.AgentMessage) bool {
		return m.GetEnded().GetId() == "7-3" && strings.Contains(m.GetEnded().GetDetail(), "no LDAP")
	})
}
