package policies

import (
	"errors"
	"fmt"
	"slices"
)

// ErrNonsense is wrapped by what is wrong with an answer that the contract does not allow.
var ErrNonsense = errors.New("the policy's answer is no answer")

// CheckOffers says what is wrong with an answer to Harvest: an offer for each node, in order, of no more than is nobody's or unused,
// and none of a node whose state forbids it.
func CheckOffers(v View, offers []Offer) error {
	if len(offers) != len(v.Nodes) {
		return fmt.Errorf("%w: %d offers for %d nodes; return one for each", ErrNonsense, len(offers), len(v.Nodes))
	}
	for i := range offers {
		if err := checkOffer(&v.Nodes[i], &offers[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkOffer(n *Node, o *Offer) error {
	r, room := o.Resources, Unallocated(n)
	room.MemoryBytes += n.Unused.MemoryBytes
	room.GPUs += n.Unused.GPUs
	switch {
	case o.Node != n.Name:
		return fmt.Errorf("%w: the offer in %s's place is of node %q; keep the view's order", ErrNonsense, n.Name, o.Node)
	case r.Cores < 0 || r.GPUs < 0:
		return fmt.Errorf("%w: %s offers a negative amount, %+v", ErrNonsense, n.Name, r)
	case !n.Free.Fits(r):
		return fmt.Errorf("%w: %s offers %+v, its agent would accept %+v", ErrNonsense, n.Name, r, n.Free)
	case !room.Fits(r):
		return fmt.Errorf("%w: %s offers %+v, of which jobs and leases leave %+v", ErrNonsense, n.Name, r, room)
	case r == Resources{} && o.Why == "":
		return fmt.Errorf("%w: %s offers nothing and says not why", ErrNonsense, n.Name)
	}
	if r != (Resources{}) {
		for _, flag := range n.Flags {
			if why, against := flagsAgainst[flag]; against {
				return fmt.Errorf("%w: %s offers %+v, but %s", ErrNonsense, n.Name, r, why)
			}
		}
	}
	return subset(ids(n.Executors), o.Shed)
}

// CheckPicks says what is wrong with an answer to Place: at most as many picks as executors are asked for, each of an offer that has
// room for all of its picks and does not speak against the function.
func CheckPicks(r Request, offers []Offer, picks []string) error {
	if len(picks) > r.Executors {
		return fmt.Errorf("%w: %d picks, %d executors are asked for", ErrNonsense, len(picks), r.Executors)
	}
	taken := map[string]int{}
	for _, node := range picks {
		taken[node]++
	}
	for i := range offers {
		o := &offers[i]
		n := taken[o.Node]
		if n == 0 {
			continue
		}
		delete(taken, o.Node)
		all := Resources{Cores: n * r.Each.Cores, MemoryBytes: uint64(n) * r.Each.MemoryBytes, GPUs: n * r.Each.GPUs}
		if slices.Contains(o.Against, r.Function) {
			return fmt.Errorf("%w: %s is picked, whose offer speaks against %s", ErrNonsense, o.Node, r.Function)
		}
		if !o.Resources.Fits(all) {
			return fmt.Errorf("%w: %s is picked %d times, which does not fit its offer", ErrNonsense, o.Node, n)
		}
	}
	for node := range taken {
		return fmt.Errorf("%w: %q is picked and has offered nothing", ErrNonsense, node)
	}
	return nil
}

// CheckOrder says what is wrong with an answer to Evict: each executor's id once.
func CheckOrder(executors []Executor, order []string) error {
	if len(order) != len(executors) {
		return fmt.Errorf("%w: an order of %d for %d executors", ErrNonsense, len(order), len(executors))
	}
	return subset(ids(executors), order)
}

// subset says whether chosen names members of known alone, each once. It empties known.
func subset(known map[string]bool, chosen []string) error {
	for _, id := range chosen {
		if !known[id] {
			return fmt.Errorf("%w: executor %q is not on the node, or named twice", ErrNonsense, id)
		}
		delete(known, id)
	}
	return nil
}

func ids(executors []Executor) map[string]bool {
	set := make(map[string]bool, len(executors))
	for i := range executors {
		set[executors[i].ID] = true
	}
	return set
}
