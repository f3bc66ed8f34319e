package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/audit"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/meter"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/broker/rules"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

const (
	// startTimeout bounds the time from Start to ready, stopTimeout that from Stop to ended.
	startTimeout = 60 * time.Second
	imageTimeout = 11 * time.Minute
	stopTimeout  = 30 * time.Second
	// missingGrace is how long an executor that its agent does not list when it registers may still be reported as ended.
	missingGrace = 3 * time.Second
	// waitingEvery bounds how often a waiting lease's reason is told anew, historyEvery how often it is written down.
	waitingEvery = time.Second
	historyEvery = time.Minute
)

// state is what the loop owns.
type state struct {
	cfg     Config
	metrics *metrics
	rec     *recording
	table   *lease.Table
	backoff *placement.Backoff
	nodes   map[string]*node
	meter   *meter.Meter

	view      *slurmctld.View // nil while slurmctld cannot be read
	viewBegan time.Time       // when the question for it was sent
	viewFirst time.Time       // when the question was sent that brought it
	viewAge   time.Duration   // for how long slurmctld has said since that nothing has changed
	viewError string
	jobs      map[uint32]*slurmctld.Job // of the view

	learner   *policies.Learner
	clashes   []policies.Clash // as last learnt
	looked    map[string]bool  // nodes whose jobs have been looked at since the policy was asked about them
	unordered map[string]bool  // nodes whose executors have changed since the policy ordered them

	watchers map[uint64]map[*watcher]bool
	events   uint64 // let out since the broker's start
	told     map[uint64]waiting
	dirty    bool // placement should run

	rules   *rules.Set
	denials map[uint32][]denied // by uid, the latest last

	lines      []audit.Entry // for the audit log, from this batch
	granting   bool          // this batch grants a lease
	auditError error         // while the audit log cannot be written

	// What waits for the next commit.
	change  store.Change
	pending lease.Effects
	acks    map[string]store.Node
	next    uint64
}

// waiting is when a lease's reason for waiting was last told and written, and what became of its last start if that went wrong.
type waiting struct {
	told, written time.Time
	admitted      bool // is written
	failure       string
}

func newState(cfg Config, m *metrics, rec *recording) (*state, error) {
	saved, err := cfg.Store.Load()
	if err != nil {
		return nil, err
	}
	now := cfg.Now()
	table, err := lease.NewTable(now, saved.Next, saved.Leases, saved.Executors)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrUnusable, err)
	}
	s := &state{
		cfg: cfg, metrics: m, rec: rec, table: table, backoff: placement.NewBackoff(),
		nodes: map[string]*node{}, meter: meter.New(), next: saved.Next,
		learner: policies.NewLearner(), looked: map[string]bool{}, unordered: map[string]bool{},
		watchers: map[uint64]map[*watcher]bool{}, told: map[uint64]waiting{}, acks: map[string]store.Node{},
		rules: cfg.Rules, denials: map[uint32][]denied{},
	}
	for name, n := range saved.Nodes {
		s.node(now, name).restore(n)
	}
	for _, x := range saved.Executors {
		s.node(now, x.Node).book(x.ID, table.Get(x.Lease).Request.Each)
	}
	return s, nil
}

// node returns what is known of a node; a new one is away since now.
func (s *state) node(now time.Time, name string) *node {
	n := s.nodes[name]
	if n == nil {
		n = &node{name: name, away: now, booked: map[string]*booking{}, over: map[uint32]time.Time{}}
		s.nodes[name] = n
	}
	return n
}

func (s *state) sortedNodes() []*node {
	return slices.SortedFunc(maps.Values(s.nodes), func(a, b *node) int { return strings.Compare(a.name, b.name) })
}

// tick does what time alone demands.
func (s *state) tick(now time.Time) {
	s.table.Tick(now)
	for _, n := range s.nodes {
		s.tickNode(now, n)
	}
	s.backoff.Forget(now, func(id uint64) bool { return s.table.Get(id) != nil })
	for _, i := range s.meter.Tick(now) {
		s.keepInterval(i)
	}
	if s.view != nil && now.Sub(s.viewBegan) > max(3*s.cfg.Poll, time.Minute) {
		s.dropView(now)
	}
	leases, executors := s.table.Counts()
	s.metrics.leases.Set(float64(leases))
	s.metrics.executors.Set(float64(executors))
	s.heed(now)
	s.rank(now)
	s.dirty = s.dirty || s.missing()
}

func (s *state) tickNode(now time.Time, n *node) {
	if n.session == nil && !n.lost && now.Sub(n.away) >= s.cfg.NodeTimeout {
		n.lost = true
		detail := fmt.Sprintf("the agent on %s has been away for %s", n.name, s.cfg.NodeTimeout)
		for _, id := range s.table.OnNode(n.name) {
			s.assume(n, id, n.away, detail)
		}
		s.table.NodeGone(now, n.name, api.EndReason_NODE_LOST, detail)
		clear(n.booked)
		n.state = nil
		s.measure(now, n)
	}
	for id, b := range n.booked {
		switch x := s.table.Executor(id); {
		case x == nil && b.stopped.IsZero():
			b.stopped = now
		case x == nil && now.Sub(b.stopped) > stopTimeout:
			delete(n.booked, id) // if it is still there the agent's report of what is leased says so
		case x != nil && !b.missing.IsZero() && now.Sub(b.missing) > missingGrace:
			detail := fmt.Sprintf("the agent on %s was restarted and does not have it any more", n.name)
			s.assume(n, id, b.missing, detail)
			s.gone(now, n, id, api.EndReason_NODE_LOST, detail)
			delete(n.booked, id)
		case x != nil && !x.Ready && n.session != nil && now.Sub(x.Placed) > s.startLimit(x):
			n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Stop{Stop: &api.Stop{Id: id, Reason: api.EndReason_EXECUTOR_FAILED}}})
			s.gone(now, n, id, api.EndReason_EXECUTOR_FAILED, fmt.Sprintf("not ready on %s within %s", n.name, s.startLimit(x)))
		}
	}
	for job, ended := range n.over {
		if now.Sub(ended) > 5*time.Minute {
			delete(n.over, job)
		}
	}
}

// startLimit is how long an executor may take from Start to ready: one with an image may have to wait until that is pulled.
func (s *state) startLimit(x *lease.Executor) time.Duration {
	if l := s.table.Get(x.Lease); l != nil && l.Request.Image != "" {
		return imageTimeout
	}
	return startTimeout
}

// missing says whether any lease wants more executors.
func (s *state) missing() bool {
	for _, l := range s.table.Leases() {
		if l.Missing() > 0 {
			return true
		}
	}
	return false
}

// place lets the placement decide and books what it picks.
func (s *state) place(now time.Time) {
	s.dirty = false
	if s.cfg.Slurm != nil && s.view == nil && s.viewError == "" {
		return // the first look at slurmctld comes before the first start
	}
	needs := s.needs()
	if len(needs) == 0 || s.holdsStarts() {
		return
	}
	plan := placement.Decide(now, s.cfg.Policy, s.offerable(now), needs, s.clashes, s.backoff)
	for _, pick := range plan.Picks {
		l, n := s.table.Get(pick.Lease), s.nodes[pick.Node]
		if x := s.table.Place(now, pick.Lease, pick.Node); x != nil {
			n.book(x.ID, l.Request.Each)
		}
	}
	for id, why := range plan.Why {
		if w := s.told[id]; now.Sub(w.told) >= waitingEvery {
			w.told = now
			s.told[id] = w
			s.table.Waiting(now, id, why+w.failure)
		}
	}
}

func (s *state) needs() []placement.Need {
	var needs []placement.Need
	for _, l := range s.table.Leases() {
		if l.Missing() == 0 {
			continue
		}
		need := placement.Need{Held: len(l.Executors)}
		need.Lease, need.UID, need.Account = l.ID, l.Request.UID, l.Request.Account
		need.Executors, need.Each = l.Missing(), l.Request.Each
		need.Function, need.Length = function(&l.Request), l.Request.Length
		need.Barred = s.barred(s.rules.Where(subject(&l.Request)))
		needs = append(needs, need)
	}
	return needs
}

// flush commits what happened and then lets it out. When the commit fails everything waits for the next one, except stops, which
// can do no harm.
func (s *state) flush(now time.Time) error {
	s.collect(now)
	if err := s.writeAudit(); err != nil {
		s.sendStops()
		return err
	}
	if err := s.cfg.Store.Update(s.change); err != nil {
		s.sendStops()
		return err
	}
	s.change = store.Change{}
	s.sendStops()
	var later []*lease.Executor
	if s.holdsStarts() {
		later, s.pending.Starts = s.pending.Starts, nil
	}
	for _, x := range s.pending.Starts {
		s.start(x)
	}
	for i := range s.pending.Events {
		s.tell(&s.pending.Events[i])
	}
	for name, stored := range s.acks {
		s.nodes[name].send(&api.BrokerMessage{Message: &api.BrokerMessage_Ack{Ack: &api.Ack{Record: stored.Record}}})
	}
	clear(s.acks)
	s.pending = lease.Effects{Starts: later}
	return nil
}

// collect adds the effects of the last steps to what waits for the commit. It says whether a lease came, went or changed.
func (s *state) collect(now time.Time) bool {
	fx := s.table.Take()
	if next := s.table.Next(); next != s.next {
		s.next, s.change.Next = next, next
	}
	s.change.Leases = merge(s.change.Leases, fx.Leases)
	s.change.Executors = merge(s.change.Executors, fx.Changed)
	for i := range fx.Events {
		e := &fx.Events[i]
		s.audited(e)
		s.observeEvent(e)
		if e.Kind != lease.Changed {
			s.unordered[e.Executor.Node] = true
		}
		if entry, ok := s.entry(now, e); ok {
			s.history(e.Lease.ID, entry)
		}
	}
	for _, x := range fx.Starts {
		s.auditedStart(now, x)
	}
	s.pending.Starts = append(s.pending.Starts, fx.Starts...)
	s.pending.Stops = append(s.pending.Stops, fx.Stops...)
	s.pending.Events = append(s.pending.Events, fx.Events...)
	return len(fx.Events) > 0
}

func merge[K comparable, V any](into, from map[K]V) map[K]V {
	if len(into) == 0 {
		return from
	}
	maps.Copy(into, from)
	return into
}

func (s *state) history(id uint64, entry store.Entry) {
	if s.change.History == nil {
		s.change.History = map[uint64][]store.Entry{}
	}
	s.change.History[id] = append(s.change.History[id], entry)
}

func (s *state) sendStops() {
	for _, stop := range s.pending.Stops {
		n := s.nodes[stop.Node]
		if n == nil {
			continue
		}
		if b := n.booked[stop.ID]; b != nil {
			b.stopped = s.cfg.Now()
		}
		n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Stop{Stop: &api.Stop{Id: stop.ID, Reason: stop.Reason}}})
	}
	s.pending.Stops = nil
}

// start tells a node to start an executor, unless its lease has ended meanwhile.
func (s *state) start(x *lease.Executor) {
	l, n := s.table.Get(x.Lease), s.nodes[x.Node]
	if l == nil || s.table.Executor(x.ID) == nil {
		delete(n.booked, x.ID)
		return
	}
	r := &l.Request
	n.send(&api.BrokerMessage{Message: &api.BrokerMessage_Start{Start: &api.Start{
		Id: x.ID, LeaseId: l.ID, Epoch: x.Epoch, Uid: r.UID, Gid: r.GID,
		Cores: uint32(r.Each.Cores), MemoryBytes: r.Each.MemoryBytes, Gpus: uint32(r.Each.GPUs),
		Function: functionOf(r), BufferBytes: r.BufferBytes, JobId: r.Job, Binds: wireBinds(r), Network: r.Network, Image: r.Image,
	}}})
}
