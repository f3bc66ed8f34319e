package plugin

import (
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
)

// each converts a list by element; nothing stays nil.
func each[A, B any](list []A, convert func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i := range list {
		out[i] = convert(list[i])
	}
	return out
}

func wireTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func wireAmount(r policies.Resources) *api.PolicyAmount {
	return &api.PolicyAmount{Cores: int64(r.Cores), Memory: r.MemoryBytes, Gpus: int64(r.GPUs)}
}

func amountOf(a *api.PolicyAmount) policies.Resources {
	return policies.Resources{Cores: int(a.GetCores()), MemoryBytes: a.GetMemory(), GPUs: int(a.GetGpus())}
}

func wireView(v policies.View) *api.HarvestRequest {
	q := &api.HarvestRequest{Now: wireTime(v.Now), Clashes: each(v.Clashes, wireClash)}
	q.Nodes = make([]*api.PolicyNode, len(v.Nodes))
	for i := range v.Nodes {
		q.Nodes[i] = wireNode(&v.Nodes[i])
	}
	return q
}

func viewOf(q *api.HarvestRequest) policies.View {
	return policies.View{Now: timeOf(q.GetNow()), Nodes: each(q.GetNodes(), nodeOf), Clashes: each(q.GetClashes(), clashOf)}
}

func wireNode(n *policies.Node) *api.PolicyNode {
	return &api.PolicyNode{
		Name: n.Name, Partitions: n.Partitions, Total: wireAmount(n.Total), Slurm: wireAmount(n.Slurm), Unused: wireAmount(n.Unused),
		Leased: wireAmount(n.Leased), Borrowed: wireAmount(n.Borrowed), Free: wireAmount(n.Free), Flags: n.Flags, Load: n.Load,
		NextStart: wireTime(n.NextStart), Waiting: uint32(max(0, n.Waiting)), Jobs: each(n.Jobs, wireJob), Executors: each(n.Executors, wireExecutor),
		Stalls: wireStalls(n.Stalls), Alone: wireStalls(n.Alone), Evictions: each(n.Evictions, wireTime),
	}
}

func nodeOf(n *api.PolicyNode) policies.Node {
	return policies.Node{
		Name: n.GetName(), Partitions: n.GetPartitions(), Total: amountOf(n.GetTotal()), Slurm: amountOf(n.GetSlurm()), Unused: amountOf(n.GetUnused()),
		Leased: amountOf(n.GetLeased()), Borrowed: amountOf(n.GetBorrowed()), Free: amountOf(n.GetFree()), Flags: n.GetFlags(), Load: n.GetLoad(),
		NextStart: timeOf(n.GetNextStart()), Waiting: int(n.GetWaiting()), Jobs: each(n.GetJobs(), jobOf), Executors: each(n.GetExecutors(), executorOf),
		Stalls: stallsOf(n.GetStalls()), Alone: stallsOf(n.GetAlone()), Evictions: each(n.GetEvictions(), timeOf),
	}
}

func wireJob(j policies.Job) *api.PolicyJob {
	return &api.PolicyJob{
		Id: j.ID, Kind: j.Kind, End: wireTime(j.End), Share: j.Share, Cores: uint32(max(0, j.Cores)),
		Allocated: j.Memory.Allocated, Used: j.Memory.Used, Peak: j.Memory.Peak, Lent: j.Memory.Lent,
	}
}

func jobOf(j *api.PolicyJob) policies.Job {
	return policies.Job{
		ID: j.GetId(), Kind: j.GetKind(), End: timeOf(j.GetEnd()), Share: j.GetShare(), Cores: int(j.GetCores()),
		Memory: policies.Memory{Allocated: j.GetAllocated(), Used: j.GetUsed(), Peak: j.GetPeak(), Lent: j.GetLent()},
	}
}

func wireStalls(s policies.Stalls) *api.PolicyStalls {
	return &api.PolicyStalls{Cpu: s.CPU, Memory: s.Memory, Io: s.IO, Bandwidth: s.Bandwidth, Missing: s.Missing, Awaited: s.Awaited}
}

func stallsOf(s *api.PolicyStalls) policies.Stalls {
	return policies.Stalls{CPU: s.GetCpu(), Memory: s.GetMemory(), IO: s.GetIo(), Bandwidth: s.GetBandwidth(), Missing: s.GetMissing(), Awaited: s.GetAwaited()}
}

func wireClash(c policies.Clash) *api.PolicyClash {
	return &api.PolicyClash{Kind: c.Kind, Function: c.Function, Share: c.Share}
}

func clashOf(c *api.PolicyClash) policies.Clash {
	return policies.Clash{Kind: c.GetKind(), Function: c.GetFunction(), Share: c.GetShare()}
}

func wireOffer(o policies.Offer) *api.PolicyOffer {
	return &api.PolicyOffer{
		Node: o.Node, Resources: wireAmount(o.Resources), Executors: uint32(max(0, o.Executors)), Until: wireTime(o.Until),
		Against: o.Against, Shed: o.Shed, Why: o.Why,
	}
}

func offerOf(o *api.PolicyOffer) policies.Offer {
	return policies.Offer{
		Node: o.GetNode(), Resources: amountOf(o.GetResources()), Executors: int(o.GetExecutors()), Until: timeOf(o.GetUntil()),
		Against: o.GetAgainst(), Shed: o.GetShed(), Why: o.GetWhy(),
	}
}

func wireExecutor(e policies.Executor) *api.PolicyExecutor {
	return &api.PolicyExecutor{
		Id: e.ID, Lease: e.Lease, Uid: e.UID, Function: e.Function, Resources: wireAmount(e.Resources), Borrowed: e.Borrowed, Started: wireTime(e.Started),
	}
}

func executorOf(e *api.PolicyExecutor) policies.Executor {
	return policies.Executor{
		ID: e.GetId(), Lease: e.GetLease(), UID: e.GetUid(), Function: e.GetFunction(), Resources: amountOf(e.GetResources()),
		Borrowed: e.GetBorrowed(), Started: timeOf(e.GetStarted()),
	}
}

func wireRequest(r policies.Request, offers []policies.Offer) *api.PlaceRequest {
	return &api.PlaceRequest{
		Now: wireTime(r.Now), Lease: r.Lease, Uid: r.UID, Account: r.Account, Function: r.Function, Length: int64(r.Length),
		Executors: uint32(max(0, r.Executors)), Each: wireAmount(r.Each), Avoid: r.Avoid, Offers: each(offers, wireOffer),
	}
}

func requestOf(q *api.PlaceRequest) policies.Request {
	return policies.Request{
		Now: timeOf(q.GetNow()), Lease: q.GetLease(), UID: q.GetUid(), Account: q.GetAccount(), Function: q.GetFunction(), Length: time.Duration(q.GetLength()),
		Executors: int(q.GetExecutors()), Each: amountOf(q.GetEach()), Avoid: q.GetAvoid(),
	}
}
