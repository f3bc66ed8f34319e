// Command nights is an example of a site's own policy in Go: by day it lends nothing on the partitions that people work on
// interactively, otherwise it is the built-in policy careful.
//
//	go build -o /etc/gleaner/policies.d/nights ./contrib/policies/nights
//	gleaner policy test /etc/gleaner/policies.d/nights
package main

import (
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/plugin"
)

func main() {
	plugin.Serve(nights{interactive: []string{"debug", "interactive"}, from: 8, to: 19, zone: time.Local})
}

// nights embeds what it does not change.
type nights struct {
	policies.Careful
	interactive []string
	from, to    int // hours between which nothing of these partitions is lent
	zone        *time.Location
}

// Harvest takes back what careful offers on interactive partitions by day. The time is the view's: the same question has the same answer.
func (n nights) Harvest(v policies.View) []policies.Offer {
	offers := n.Careful.Harvest(v)
	if hour := v.Now.In(n.zone).Hour(); hour < n.from || hour >= n.to {
		return offers
	}
	for i := range offers {
		interactive := func(partition string) bool { return slices.Contains(n.interactive, partition) }
		if slices.ContainsFunc(v.Nodes[i].Partitions, interactive) && offers[i].Resources != (policies.Resources{}) {
			offers[i].Resources, offers[i].Why = policies.Resources{}, "people work on this partition by day"
		}
	}
	return offers
}
