package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/launcher"
)

// Grants are what a node's site lets leases ask for, beyond cores, memory and GPUs.
type Grants struct {
	Binds   []string // folders below which a lease may have its owner's files
	Network bool     // functions may open sockets
}

// check refuses what a lease asks for and the site does not grant. That paths lead where they say, without a link on the way, and that
// the owner may go there is the launcher's to see to.
func (g Grants) check(s *api.Start) error {
	if s.GetNetwork() && !g.Network {
		return fmt.Errorf("this node lets no function use the network: sandbox.network in its agent.toml")
	}
	for _, b := range s.GetBinds() {
		if !g.covers(b.GetSource()) {
			return fmt.Errorf("bind %.200q: this node shows leases files below %s only: sandbox.binds in its agent.toml", b.GetSource(), g.folders())
		}
	}
	return nil
}

func (g Grants) covers(source string) bool {
	for _, folder := range g.Binds {
		folder = strings.TrimRight(folder, "/")
		if source == folder || strings.HasPrefix(source, folder+"/") {
			return true
		}
	}
	return false
}

func (g Grants) folders() string {
	if len(g.Binds) == 0 {
		return "no folder"
	}
	return strings.Join(g.Binds, ", ")
}

func bindsOf(s *api.Start) []launcher.Bind {
	var binds []launcher.Bind
	for _, b := range s.GetBinds() {
		binds = append(binds, launcher.Bind{Source: b.GetSource(), Target: b.GetTarget(), Writable: b.GetWritable()})
	}
	return binds
}

// identify gives a sandbox its user's supplementary groups.
func (l *loop) identify(ctx context.Context, spec *launcher.Spec) (err error) {
	if l.cfg.Groups != nil {
		spec.Groups, err = l.cfg.Groups(ctx, spec.UID, time.Now())
	}
	return err
}
