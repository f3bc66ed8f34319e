package policies

import (
	"cmp"
	"time"
)

// Slack lends what Idle lends and, of jobs that share, the memory that they have been given and do not use, and their GPUs where they
// gave leave. It places like Idle.
type Slack struct{ Idle }

// Harvest adds what jobs do not use.
func (Slack) Harvest(v View) []Offer {
	offers := make([]Offer, len(v.Nodes))
	for i := range v.Nodes {
		offers[i] = harvest(&v.Nodes[i], true)
	}
	return offers
}

// Evict puts those first that have borrowed most of jobs' memory, since a job may want it back without any core; among them, and among
// the rest, the youngest.
func (Slack) Evict(_ Overlap, executors []Executor) []string {
	return order(executors, func(a, b *Executor) int {
		return cmp.Or(cmp.Compare(b.Borrowed, a.Borrowed), b.Started.Compare(a.Started))
	})
}

// Careful lends what Slack lends, but nothing of a node on which a job is expected soon, and places a function only where it is likely
// to end before its node is wanted back: a lease's expected life covers the function.
//
// A node is wanted back when slurmctld expects the next job there, or, while jobs wait for its partition, when the time limit of a
// job that runs there ends, whichever comes first.
type Careful struct {
	Slack
	// Horizon is how near a job has to be for nothing more to be lent, and the length of a function of unknown length; 0: DefaultHorizon.
	Horizon time.Duration
}

// DefaultHorizon is a little more than the time in which slurmctld's view is read again.
const DefaultHorizon = 20 * time.Second

// Harvest keeps off nodes whose next job is near and says of the others how long they are likely to last.
func (c Careful) Harvest(v View) []Offer {
	offers := c.Slack.Harvest(v)
	for i := range offers {
		o := &offers[i]
		o.Until = wantedBack(&v.Nodes[i], v.Now)
		if o.Resources != (Resources{}) && !o.Until.IsZero() && o.Until.Sub(v.Now) < c.horizon() {
			o.Resources, o.Why = Resources{}, "a job is expected there at "+o.Until.UTC().Format(time.RFC3339)
		}
	}
	return offers
}

func (c Careful) horizon() time.Duration { return cmp.Or(c.Horizon, DefaultHorizon) }

// wantedBack is when a job is expected to need the node; zero when nothing speaks for any.
func wantedBack(n *Node, now time.Time) time.Time {
	back := n.NextStart
	if n.Waiting == 0 {
		return back
	}
	for i := range n.Jobs {
		if end := n.Jobs[i].End; end.After(now) && (back.IsZero() || end.Before(back)) {
			back = end
		}
	}
	return back
}

// Place spreads over the offers that last as long as one invocation takes, among equally used nodes those that last longest.
func (c Careful) Place(r Request, offers []Offer) []string {
	length := cmp.Or(r.Length, c.horizon())
	return place(r, offers, func(o *Offer) (time.Duration, bool) {
		if o.Until.IsZero() {
			return 1<<63 - 1, true
		}
		lasts := o.Until.Sub(r.Now)
		return lasts, lasts >= length
	})
}
