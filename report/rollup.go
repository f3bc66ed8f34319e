package report

import (
	"cmp"
	"slices"
	"time"
)

// rollup turns records into a Report. It is pure: no clock, no file. Intervals arrive ordered by node, then by start.
//
// All CPU and GPU time is counted in whole milliseconds after the ends of each interval have been cut to whole milliseconds of
// the epoch, so that cutting an interval anywhere changes no sum.
type rollup struct {
	since, until int64 // ms of the epoch
	step         int64 // of the heatmap, ms
	first        int64 // start of the heatmap, ms
	columns      int
	r            *Report

	covered int64 // up to where the current node is covered, ms

	users, accounts, functions map[string]*UsageRow
	ends                       map[string]int
	startups, lifetimes        []time.Duration
	claims                     map[claimKey]time.Duration
	evictions                  []time.Duration
}

type claimKey struct {
	job  uint32
	node string
	path string
}

func newRollup(since, until time.Time) *rollup {
	u := &rollup{
		since: since.UnixMilli(), until: until.UnixMilli(),
		r:     &Report{Schema: Schema, Since: since.UTC(), Until: until.UTC()},
		users: map[string]*UsageRow{}, accounts: map[string]*UsageRow{}, functions: map[string]*UsageRow{},
		ends: map[string]int{}, claims: map[claimKey]time.Duration{},
	}
	u.step = heatStep(u.until - u.since)
	u.first = u.since - mod(u.since, u.step)
	if u.until > u.first {
		u.columns = int((u.until - u.first + u.step - 1) / u.step)
	}
	u.r.Heatmap = Heatmap{Start: time.UnixMilli(u.first).UTC(), Step: time.Duration(u.step) * time.Millisecond}
	return u
}

func mod(a, b int64) int64 { return ((a % b) + b) % b }

// heatStep picks a column's length so that a window has at most 50 of them, and hours wherever that is possible.
func heatStep(window int64) int64 {
	const second, minute, hour = 1000, 60_000, 3_600_000
	if window > 3*hour && window <= 49*hour {
		return hour
	}
	for _, s := range []int64{second, 2 * second, 5 * second, 10 * second, 30 * second, minute, 2 * minute, 5 * minute,
		hour, 2 * hour, 6 * hour, 12 * hour, 24 * hour} {
		if window <= 49*s {
			return s
		}
	}
	return (window/(49*24*hour) + 1) * 24 * hour
}

// interval adds one interval.
func (u *rollup) interval(iv Interval) {
	start, end := max(iv.Start.UnixMilli(), u.since), min(iv.End.UnixMilli(), u.until)
	if start >= end {
		return
	}
	if n := len(u.r.Nodes); n == 0 || u.r.Nodes[n-1].Node != iv.Node {
		u.closeNode()
		u.openNode(iv)
	}
	if start < u.covered {
		u.r.Quality.Repeated++
		if start = u.covered; start >= end {
			return
		}
	}
	u.gap(start)
	u.covered = end

	row, heat := &u.r.Nodes[len(u.r.Nodes)-1], u.r.Heatmap.Rows[len(u.r.Heatmap.Rows)-1]
	for at := start; at < end; {
		column := (at - u.first) / u.step
		to := min(end, u.first+(column+1)*u.step)
		part, overlap := slice(iv.State, iv.CPUs, iv.AllocatedCPUs, iv.HarvestedCPUs, to-at)
		heat.Cells[column].Add(part)
		row.CPU.Add(part)
		u.r.CPU.Add(part)
		u.r.Quality.OverlapMS += overlap
		at = to
	}
	gpu, _ := slice(iv.State, iv.GPUs, iv.AllocatedGPUs, iv.HarvestedGPUs, end-start)
	row.GPU.Add(gpu)
	u.r.GPU.Add(gpu)
	m := memory(iv, float64(end-start)/1000)
	row.Memory.add(m)
	u.r.Memory.add(m)
}

// slice divides ms of a resource of n units. What is both allocated and harvested is the owner's; overlap says how much it was.
func slice(state State, n, allocated, harvested int, ms int64) (s Slices, overlap int64) {
	n = max(n, 0)
	a := min(max(allocated, 0), n)
	h := min(max(harvested, 0), n-a)
	rest := int64(n-a-h) * ms
	s = Slices{Allocated: int64(a) * ms, Harvested: int64(h) * ms, Reported: int64(n) * ms}
	switch state {
	case Down:
		s.Down = rest
	case PlannedDown:
		s.PlannedDown = rest
	case Planned:
		s.Planned = rest
	default:
		s.Idle = rest
	}
	return s, int64(max(harvested-h, 0)) * ms
}

func memory(iv Interval, seconds float64) Memory {
	allocated := min(iv.AllocatedMemory, iv.MemoryBytes)
	m := Memory{
		Reported:  float64(iv.MemoryBytes) * seconds,
		Allocated: float64(allocated) * seconds,
		Harvested: float64(min(iv.HarvestedMemory, iv.MemoryBytes-allocated)) * seconds,
	}
	if iv.UsedMemory > 0 {
		m.Used, m.UsedKnown = float64(min(iv.UsedMemory, iv.MemoryBytes))*seconds, m.Reported
	}
	return m
}

func (m *Memory) add(o Memory) {
	m.Reported += o.Reported
	m.Allocated += o.Allocated
	m.Harvested += o.Harvested
	m.Used += o.Used
	m.UsedKnown += o.UsedKnown
}

func (u *rollup) openNode(iv Interval) {
	u.r.Nodes = append(u.r.Nodes, NodeRow{Node: iv.Node, Partition: iv.Partition})
	u.r.Heatmap.Rows = append(u.r.Heatmap.Rows, HeatRow{Node: iv.Node, Cells: make([]Slices, u.columns)})
	u.covered = u.since
}

func (u *rollup) closeNode() {
	if len(u.r.Nodes) > 0 {
		u.gap(u.until)
	}
}

// gap notes that the current node is not covered from u.covered to end.
func (u *rollup) gap(end int64) {
	if end <= u.covered {
		return
	}
	q := &u.r.Quality
	q.GapMS += end - u.covered
	q.Gaps = append(q.Gaps, Gap{
		Node:  u.r.Nodes[len(u.r.Nodes)-1].Node,
		Start: time.UnixMilli(u.covered).UTC(), End: time.UnixMilli(end).UTC(),
	})
}

// executor adds one life, cut to the window; its CPU time counts in proportion.
func (u *rollup) executor(e Executor) {
	from, to := e.Start.UnixMilli(), e.End.UnixMilli()
	start, end := max(from, u.since), min(to, u.until)
	if start > end || (start == end && from != to) {
		return
	}
	u.r.Executors++
	ms, used, polled := end-start, e.CPUTime.Milliseconds(), e.SpinTime.Milliseconds()
	if whole := to - from; whole > ms {
		part := float64(ms) / float64(whole)
		used, polled = int64(float64(used)*part), int64(float64(polled)*part)
	}
	endedHere := to <= u.until
	if endedHere {
		u.ends[e.Reason]++
		u.lifetimes = append(u.lifetimes, e.End.Sub(e.Start))
		if e.Startup > 0 {
			u.startups = append(u.startups, e.Startup)
		}
	}
	row := UsageRow{
		Executors: 1, CPUMS: int64(e.Cores) * ms, UsedCPUMS: used, PolledCPUMS: polled,
		MemoryByteHours: float64(e.Memory) * float64(ms) / 3_600_000, GPUMS: int64(e.GPUs) * ms,
	}
	if endedHere && e.Reason == "evicted" {
		row.Evicted = 1
		u.r.Harm.Evictions++
		u.r.Harm.EvictedMemory += e.Memory
	}
	addUsage(u.users, cmp.Or(e.User, "(unknown)"), row)
	addUsage(u.accounts, cmp.Or(e.Account, "(none)"), row)
	addUsage(u.functions, cmp.Or(e.Function, "(unknown)"), row)
}

func addUsage(m map[string]*UsageRow, name string, o UsageRow) {
	r := m[name]
	if r == nil {
		r = &UsageRow{Name: name}
		m[name] = r
	}
	r.Executors += o.Executors
	r.CPUMS += o.CPUMS
	r.UsedCPUMS += o.UsedCPUMS
	r.PolledCPUMS += o.PolledCPUMS
	r.MemoryByteHours += o.MemoryByteHours
	r.GPUMS += o.GPUMS
	r.Evicted += o.Evicted
}

func (u *rollup) within(t time.Time) bool {
	ms := t.UnixMilli()
	return ms >= u.since && ms < u.until
}

// claim adds one answer. A job asks several times on a node, once per step: the slowest answer of each path counts, paths add up.
func (u *rollup) claim(c Claim) {
	if !u.within(c.Time) {
		return
	}
	k := claimKey{c.Job, c.Node, c.Path}
	u.claims[k] = max(u.claims[k], c.Duration)
	if c.Evicted > 0 {
		u.evictions = append(u.evictions, c.Duration)
	}
	if !c.Complete {
		u.r.Harm.Late++
	}
}

func (u *rollup) tasks(t Tasks) {
	if u.within(t.Time) {
		u.r.Tasks.OK += t.OK
		u.r.Tasks.Failed += t.Failed
		u.r.Tasks.Retried += t.Retried
	}
}

func (u *rollup) drain(d Drain) {
	switch {
	case !u.within(d.Time):
	case d.Ours:
		u.r.Harm.DrainsByGleaner++
	default:
		u.r.Harm.DrainsOther++
	}
}

// report ends the rollup.
func (u *rollup) report() *Report {
	u.closeNode()
	r := u.r
	r.Users, r.Accounts, r.Functions = usage(u.users), usage(u.accounts), usage(u.functions)
	r.Startup, r.Lifetime, r.Harm.Eviction = distribution(u.startups), distribution(u.lifetimes), distribution(u.evictions)
	r.Harm.JobStartDelay = distribution(u.jobDelays())
	for reason, n := range u.ends {
		r.Ends = append(r.Ends, ReasonCount{reason, n})
	}
	slices.SortFunc(r.Ends, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return r
}

func (u *rollup) jobDelays() []time.Duration {
	type jobNode struct {
		job  uint32
		node string
	}
	nodes, jobs := map[jobNode]time.Duration{}, map[uint32]time.Duration{}
	for k, d := range u.claims {
		nodes[jobNode{k.job, k.node}] += d
	}
	for k, d := range nodes {
		jobs[k.job] = max(jobs[k.job], d)
	}
	delays := make([]time.Duration, 0, len(jobs))
	for _, d := range jobs {
		delays = append(delays, d)
	}
	return delays
}

func usage(m map[string]*UsageRow) []UsageRow {
	rows := make([]UsageRow, 0, len(m))
	for _, r := range m {
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b UsageRow) int {
		return cmp.Or(cmp.Compare(b.CPUMS, a.CPUMS), cmp.Compare(a.Name, b.Name))
	})
	return rows
}

// distribution takes the nearest rank: the smallest value that at least that share of the values does not exceed.
func distribution(d []time.Duration) Distribution {
	if len(d) == 0 {
		return Distribution{}
	}
	slices.Sort(d)
	rank := func(percent int) time.Duration { return d[(len(d)*percent+99)/100-1] }
	return Distribution{Count: len(d), P50: rank(50), P99: rank(99), Max: d[len(d)-1]}
}
