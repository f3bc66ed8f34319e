package broker

import (
	"fmt"
	"path"
	"strings"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
)

const maxBinds = 16

func bindsOf(q *api.AcquireRequest) []lease.Bind {
	var binds []lease.Bind
	for _, b := range q.GetBinds() {
		binds = append(binds, lease.Bind{Source: b.GetSource(), Target: b.GetTarget(), Writable: b.GetWritable()})
	}
	return binds
}

func wireBinds(r *lease.Request) []*api.Bind {
	var binds []*api.Bind
	for _, b := range r.Binds {
		binds = append(binds, &api.Bind{Source: b.Source, Target: b.Target, Writable: b.Writable})
	}
	return binds
}

// wrongBind says what is wrong with the first of the binds that no node could take; "" for none. Which folders may be shown is for each
// node to say.
func wrongBind(binds []lease.Bind) string {
	if len(binds) > maxBinds {
		return fmt.Sprintf("binds: %d, at most %d", len(binds), maxBinds)
	}
	for _, b := range binds {
		for _, p := range []string{b.Source, b.Target} {
			if !path.IsAbs(p) || path.Clean(p) != p || len(p) > 4095 || !printable(p) {
				return fmt.Sprintf("binds: %.200q: want an absolute path without . and ..", p)
			}
		}
		if strings.Count(b.Target, "/") < 2 {
			return fmt.Sprintf("binds: target %.200q: want a path of two components or more, such as /data/in", b.Target)
		}
	}
	return ""
}
