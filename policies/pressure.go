package policies

import (
	"cmp"
	"slices"
)

// Pressure lends what Careful lends, but watches how the jobs fare: where they stall more than they do alone it admits nothing, and where
// they stall much more it lets executors go, first those whose function is known to clash with a job there, then half of the others,
// the youngest first, each time that it is asked. Functions known to clash with a job's kind are not placed beside it.
//
//	stalls beyond alone      0 ────── Admit ────────── Shed ──────▶
//	                         lend     lend nothing     let go
//
// Where the node cannot tell how long jobs wait, that speaks neither for nor against. Where it cannot tell its memory bandwidth, what
// functions take of it is felt by the jobs and seen by nobody: beside jobs nothing is lent, and what runs goes. Where it has not told
// anything yet, nothing more is lent until it has.
type Pressure struct {
	Careful
	Admit Stalls // up to here executors are admitted; zero: DefaultAdmit
	Shed  Stalls // beyond this they are let go; zero: DefaultShed
	// LendBlind lends beside jobs by what else the node tells when it cannot tell its memory bandwidth: the site accepts what is not seen.
	LendBlind bool
}

var (
	// DefaultAdmit and DefaultShed bound what jobs stall more beside executors than alone. Bandwidth counts as it is: a memory bus that
	// is full serves nobody, whoever fills it.
	DefaultAdmit = Stalls{CPU: 0.05, Memory: 0.01, IO: 0.05, Bandwidth: 0.6}
	DefaultShed  = Stalls{CPU: 0.15, Memory: 0.03, IO: 0.15, Bandwidth: 0.85}
)

// clashFrom is the share of the time from which a pair counts as one that clashes.
const clashFrom = 0.05

// What operators and users read where nothing is lent for want of sight.
const (
	whyBlind   = `the node cannot tell its memory bandwidth, and nothing is lent beside its jobs unseen: mount resctrl there, or set policy.blind = "lend" in broker.toml`
	whyAwaited = "the node has not told yet how its jobs fare"
)

// Harvest admits by stalls, names the functions that clash, and lets go of those that disturb.
func (p Pressure) Harvest(v View) []Offer {
	offers := p.Careful.Harvest(v)
	for i := range offers {
		n, o := &v.Nodes[i], &offers[i]
		if len(n.Jobs) == 0 {
			continue // nobody is disturbed
		}
		o.Against = against(n, v.Clashes)
		why := ""
		switch {
		case !p.LendBlind && n.Stalls.Awaited:
			why = whyAwaited
		case !p.LendBlind && blind(n):
			why, o.Shed = whyBlind, Idle{}.Evict(Overlap{}, n.Executors)
		default:
			if what := exceeds(n, p.limits(p.Admit, DefaultAdmit)); what != "" {
				why = "the jobs there stall: " + what
			}
			if what := exceeds(n, p.limits(p.Shed, DefaultShed)); what != "" {
				o.Shed = shed(n, o.Against)
			}
		}
		if why != "" && (o.Resources != (Resources{}) || len(o.Shed) > 0) {
			o.Resources, o.Why = Resources{}, why
		}
	}
	return offers
}

// blind says whether the node cannot tell what its jobs feel of others at memory. One that is about to tell is not blind.
func blind(n *Node) bool { return slices.Contains(n.Stalls.Missing, "bandwidth") }

func (Pressure) limits(s, otherwise Stalls) Stalls {
	return Stalls{
		CPU: cmp.Or(s.CPU, otherwise.CPU), Memory: cmp.Or(s.Memory, otherwise.Memory),
		IO: cmp.Or(s.IO, otherwise.IO), Bandwidth: cmp.Or(s.Bandwidth, otherwise.Bandwidth),
	}
}

// exceeds names what of the node lies beyond the limits; "" for nothing.
func exceeds(n *Node, limits Stalls) string {
	for _, figure := range []struct {
		name       string
		now, limit float64
	}{
		{"memory", n.Stalls.Memory - n.Alone.Memory, limits.Memory},
		{"cpu", n.Stalls.CPU - n.Alone.CPU, limits.CPU},
		{"io", n.Stalls.IO - n.Alone.IO, limits.IO},
		{"bandwidth", n.Stalls.Bandwidth, limits.Bandwidth},
	} {
		if figure.now > figure.limit && !slices.Contains(n.Stalls.Missing, figure.name) {
			return figure.name
		}
	}
	return ""
}

// against names the functions that clash with a job of the node, in order.
func against(n *Node, clashes []Clash) []string {
	var functions []string
	for _, c := range clashes {
		if c.Share >= clashFrom && slices.ContainsFunc(n.Jobs, func(j Job) bool { return j.Kind == c.Kind }) {
			functions = append(functions, c.Function)
		}
	}
	slices.Sort(functions)
	return slices.Compact(functions)
}

// shed names those that go: all whose function clashes, else half of the node's executors, the youngest.
func shed(n *Node, against []string) []string {
	var clashing []Executor
	for i := range n.Executors {
		if slices.Contains(against, n.Executors[i].Function) {
			clashing = append(clashing, n.Executors[i])
		}
	}
	if len(clashing) > 0 {
		return Idle{}.Evict(Overlap{}, clashing)
	}
	return Idle{}.Evict(Overlap{}, n.Executors)[:(len(n.Executors)+1)/2]
}
