// Package rules says who may lease what, where and how much, after the site's [[allow]], [[deny]] and [[limit]] tables. It is pure:
// the broker's loop asks it with what it knows of a request. It refuses tables that mean nothing; it changes nothing that runs.
//
//   - A request that a [[deny]] without places covers is denied. Where there are [[allow]] rules, so is one that none of them covers.
//   - A rule with partitions or nodes is about places: executors run where an [[allow]] that covers the request lets them and no
//     [[deny]] that covers it forbids.
//   - A [[limit]] bounds what the living leases of one user, or of one account, ask for together.
//
// An account counts for [[allow]] only when it is that of the lease's Slurm job, which Slurm has checked; for the others the lease's
// own word is enough.
package rules

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

// AllowList is the reason of a denial by the absence of a rule.
const AllowList = "allow_list"

// Subject is who asks, and for what.
type Subject struct {
	UID     uint32
	User    string
	Groups  []string
	Account string
	Checked bool // the account is that of the lease's Slurm job
	Digest  []byte
	Images  []string // the image's name and digest; empty without an image
}

// Amount is what leases ask for.
type Amount struct {
	Executors, Cores int
	Memory           uint64 // bytes
}

// Held is a living lease.
type Held struct {
	Subject
	Amount
}

// Denial is a refusal with the rule's name.
type Denial struct {
	Rule, Why string
}

type who struct{ users, groups, accounts []string }

type rule struct {
	who
	name            string
	digests, images []string
	partitions      []string
	nodes           map[string]bool // nil: all
}

type limit struct {
	who
	name    string
	account bool // per account, else per user
	most    Amount
}

// Set is a site's rules. The nil Set has none.
type Set struct {
	allow, deny []rule
	limits      []limit
	groups      bool
}

// Compile reads the tables of a broker's configuration.
func Compile(c *config.Broker) (*Set, error) {
	s := &Set{}
	var err error
	if s.allow, err = compile(c.Allow); err != nil {
		return nil, err
	}
	if s.deny, err = compile(c.Deny); err != nil {
		return nil, err
	}
	for i := range c.Limit {
		l := &c.Limit[i]
		s.limits = append(s.limits, limit{who{l.Users, l.Groups, l.Accounts}, l.Name, l.Per == "account", Amount{l.Executors, l.Cores, uint64(l.Memory)}})
		s.groups = s.groups || len(l.Groups) > 0
	}
	for _, r := range slices.Concat(s.allow, s.deny) {
		s.groups = s.groups || len(r.groups) > 0
	}
	return s, nil
}

func compile(tables []config.Rule) ([]rule, error) {
	var rules []rule
	for _, t := range tables {
		r := rule{who: who{t.Users, t.Groups, t.Accounts}, name: t.Name, images: t.Images, partitions: t.Partitions}
		for _, digest := range t.Digests {
			r.digests = append(r.digests, strings.ToLower(digest))
		}
		names, err := hostlist.Expand(t.Nodes)
		if err != nil {
			return nil, fmt.Errorf("rule %s: nodes: %w", t.Name, err)
		}
		for _, name := range names {
			if r.nodes == nil {
				r.nodes = map[string]bool{}
			}
			r.nodes[name] = true
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// WantsGroups says whether a rule names groups, so that a subject needs its own.
func (s *Set) WantsGroups() bool { return s != nil && s.groups }

// Judge returns why a request is denied, or nil.
func (s *Set) Judge(q Subject) *Denial {
	if s == nil {
		return nil
	}
	for i := range s.deny {
		if r := &s.deny[i]; !r.placed() && r.covers(q, false) {
			return &Denial{r.name, fmt.Sprintf("rule %s of this site denies it%s", r.name, r.what())}
		}
	}
	if len(s.allow) == 0 || slices.ContainsFunc(s.allow, func(r rule) bool { return r.covers(q, true) }) {
		return nil
	}
	names := make([]string, 0, len(s.allow))
	for i := range s.allow {
		names = append(names, s.allow[i].name)
	}
	return &Denial{AllowList, fmt.Sprintf("this site leases to those alone whom one of its rules covers (%s), and none of them covers this request", strings.Join(names, ", "))}
}

// Exceeded returns the limit that a request would pass, given the living leases, or nil.
func (s *Set) Exceeded(q Held, living []Held) *Denial {
	if s == nil {
		return nil
	}
	for i := range s.limits {
		l := &s.limits[i]
		if !l.includes(q.Subject, false) || l.account && q.Account == "" {
			continue
		}
		held := Amount{}
		for _, h := range living {
			if l.includes(h.Subject, false) && (l.account && h.Account == q.Account || !l.account && h.UID == q.UID) {
				held = Amount{held.Executors + h.Executors, held.Cores + h.Cores, held.Memory + h.Memory}
			}
		}
		whose := "user " + q.User
		if l.account {
			whose = "account " + q.Account
		}
		if why := l.passed(held, q.Amount); why != "" {
			return &Denial{l.name, fmt.Sprintf("rule %s of this site limits %s to %s: release a lease or ask for less", l.name, whose, why)}
		}
	}
	return nil
}

func (l *limit) passed(held, ask Amount) string {
	switch {
	case l.most.Executors > 0 && held.Executors+ask.Executors > l.most.Executors:
		return fmt.Sprintf("%d executors at a time; %d are leased and %d more asked for", l.most.Executors, held.Executors, ask.Executors)
	case l.most.Cores > 0 && held.Cores+ask.Cores > l.most.Cores:
		return fmt.Sprintf("%d cores at a time; %d are leased and %d more asked for", l.most.Cores, held.Cores, ask.Cores)
	case l.most.Memory > 0 && held.Memory+ask.Memory > l.most.Memory:
		return fmt.Sprintf("%s of memory at a time; %s is leased and %s more asked for", config.FormatMemory(l.most.Memory), config.FormatMemory(held.Memory), config.FormatMemory(ask.Memory))
	}
	return ""
}

// Where says on which nodes executors of a request may run.
type Where struct {
	allow, deny []*rule
	anywhere    bool // an allow without places covers the request, or there are none
}

// Where returns nil when a request may run anywhere.
func (s *Set) Where(q Subject) *Where {
	if s == nil {
		return nil
	}
	w := &Where{anywhere: len(s.allow) == 0}
	for i := range s.allow {
		if r := &s.allow[i]; r.covers(q, true) {
			w.allow = append(w.allow, r)
			w.anywhere = w.anywhere || !r.placed()
		}
	}
	for i := range s.deny {
		if r := &s.deny[i]; r.placed() && r.covers(q, false) {
			w.deny = append(w.deny, r)
		}
	}
	if w.anywhere && len(w.deny) == 0 {
		return nil
	}
	return w
}

// Bars says why a node is no place for the request, or "".
func (w *Where) Bars(node string, partitions []string) string {
	if w == nil {
		return ""
	}
	for _, r := range w.deny {
		if r.at(node, partitions) {
			return "rule " + r.name + " of this site denies it there"
		}
	}
	if w.anywhere || slices.ContainsFunc(w.allow, func(r *rule) bool { return r.at(node, partitions) }) {
		return ""
	}
	names := make([]string, 0, len(w.allow))
	for _, r := range w.allow {
		names = append(names, r.name)
	}
	return "not where rule " + strings.Join(names, ", ") + " of this site allows it"
}

func (r *rule) placed() bool { return len(r.partitions) > 0 || r.nodes != nil }

func (r *rule) at(node string, partitions []string) bool {
	return (r.nodes == nil || r.nodes[node]) && (len(r.partitions) == 0 || slices.ContainsFunc(partitions, func(p string) bool { return slices.Contains(r.partitions, p) }))
}

func (r *rule) covers(q Subject, checked bool) bool {
	return r.includes(q, checked) && (len(r.digests) == 0 || slices.Contains(r.digests, hex.EncodeToString(q.Digest))) && (len(r.images) == 0 || meet(r.images, q.Images))
}

// what names the part of a request that a rule is about.
func (r *rule) what() string {
	switch {
	case len(r.digests) > 0:
		return ", by the function's library"
	case len(r.images) > 0:
		return ", by its image"
	}
	return ""
}

func (w *who) includes(q Subject, checked bool) bool {
	return (len(w.users) == 0 || slices.Contains(w.users, q.User)) && (len(w.groups) == 0 || meet(w.groups, q.Groups)) &&
		(len(w.accounts) == 0 || (q.Checked || !checked) && slices.Contains(w.accounts, q.Account))
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
