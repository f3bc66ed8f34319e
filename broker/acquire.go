package broker

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/placement"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/policies"
)

// maxLength bounds how long one invocation may be said to take.
const maxLength = 30 * 24 * time.Hour

var symbol = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// denial is a refusal with the name under which it is counted.
type denial struct {
	rule string
	err  error
}

func deny(rule string, code codes.Code, format string, args ...any) *denial {
	return &denial{rule, status.Errorf(code, format, args...)}
}

// request checks an AcquireRequest and fills in its defaults.
func (c *Config) request(caller identity.Caller, q *api.AcquireRequest) (lease.Request, *denial) {
	r := lease.Request{
		UID: caller.UID, GID: caller.GID, Account: q.Account, Job: q.JobId, Executors: int(q.Executors), BufferBytes: q.BufferBytes,
		Each: policies.Resources{Cores: int(q.Cores), MemoryBytes: q.MemoryBytes, GPUs: int(q.Gpus)},
		TTL:  q.Ttl.AsDuration(), Length: q.Length.AsDuration(), Image: q.Image,
	}
	r.Binds, r.Network = bindsOf(q), q.Network
	setDefault(&r.Each.Cores, 1)
	setDefault(&r.Each.MemoryBytes, 256<<20)
	setDefault(&r.TTL, min(30*time.Second, c.MaxTTL))
	setDefault(&r.BufferBytes, min(1<<20, r.Each.MemoryBytes/4))
	if f := q.Function; f != nil {
		r.Function = lease.Function{Symbol: f.Symbol, Digest: f.Digest, SizeBytes: f.SizeBytes, Name: f.Name}
	}
	if !c.AllowRoot && caller.UID < c.FirstUID {
		return r, deny("allow_root", codes.PermissionDenied, "uid %d is root or a system user (below %d) and may not lease: rule identity.allow_root in broker.toml", caller.UID, c.FirstUID)
	}
	for _, check := range []struct {
		ok   bool
		what string
	}{
		{r.Executors >= 1 && r.Executors <= 4096, fmt.Sprintf("executors: %d is out of range 1 to 4096", q.Executors)},
		{r.Each.Cores >= 1 && r.Each.Cores <= 1024, fmt.Sprintf("cores: %d is out of range 1 to 1024", q.Cores)},
		{r.Each.MemoryBytes >= 32<<20 && r.Each.MemoryBytes <= 16<<40, fmt.Sprintf("memory_bytes: %d is out of range 32 MiB to 16 TiB", q.MemoryBytes)},
		{r.Each.GPUs <= 1024, fmt.Sprintf("gpus: %d is out of range 0 to 1024", q.Gpus)},
		{q.Function != nil, "function: missing"},
		{q.Function == nil || symbol.MatchString(r.Function.Symbol), fmt.Sprintf("function.symbol: %.140q is no C symbol of at most 128 bytes", r.Function.Symbol)},
		{q.Function == nil || len(r.Function.Digest) == sha256.Size, fmt.Sprintf("function.digest: %d bytes, want a SHA-256 of 32", len(r.Function.Digest))},
		{q.Function == nil || r.Function.SizeBytes >= 1 && r.Function.SizeBytes <= 256<<20, fmt.Sprintf("function.size_bytes: %d is out of range 1 B to 256 MiB", r.Function.SizeBytes)},
		{len(r.Function.Name) <= 128, fmt.Sprintf("function.name: %d bytes, at most 128", len(r.Function.Name))},
		{q.Ttl == nil || q.Ttl.IsValid() && r.TTL >= 2*time.Second && r.TTL <= c.MaxTTL, fmt.Sprintf("ttl: %s is out of range 2s to %s (limits.max_ttl)", q.Ttl.AsDuration(), c.MaxTTL)},
		{q.Length == nil || q.Length.IsValid() && r.Length >= 0 && r.Length <= maxLength, fmt.Sprintf("length: %s is out of range 0 to %s", q.Length.AsDuration(), maxLength)},
		{wrongBind(r.Binds) == "", wrongBind(r.Binds)},
		{printable(r.Function.Name), fmt.Sprintf("function.name: %.140q has characters that cannot be printed", r.Function.Name)},
		{len(r.Image) <= 1024 && printable(r.Image), fmt.Sprintf("image: %.140q is longer than 1024 bytes or has characters that cannot be printed", r.Image)},
		{printable(r.Account), fmt.Sprintf("account: %.140q has characters that cannot be printed", r.Account)},
		{len(r.Account) <= 256, fmt.Sprintf("account: %d bytes, at most 256", len(r.Account))},
		{r.BufferBytes >= 4<<10 && r.BufferBytes <= r.Each.MemoryBytes/4, fmt.Sprintf("buffer_bytes: %d is out of range 4 KiB to a quarter of memory_bytes (%d)", r.BufferBytes, r.Each.MemoryBytes/4)},
	} {
		if !check.ok {
			return r, deny("invalid", codes.InvalidArgument, "%s", check.what)
		}
	}
	if r.Executors > c.MaxExecutors {
		return r, deny("max_executors", codes.ResourceExhausted, "executors: %d is above this cluster's limit of %d (limits.max_executors)", r.Executors, c.MaxExecutors)
	}
	return r, nil
}

// printable says whether a text that others will read on their terminals is safe there.
func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// admit checks a request against what the loop knows and admits it.
func (s *state) admit(now time.Time, r lease.Request) (*lease.Lease, *denial) {
	if job := s.jobs[r.Job]; r.Job != 0 && job != nil {
		switch {
		case job.UID != r.UID && r.UID != 0:
			return nil, deny("job", codes.PermissionDenied, "job_id: Slurm job %d belongs to uid %d; a lease may only be bound to a job of one's own", r.Job, job.UID)
		case jobOver[job.State]:
			return nil, deny("job", codes.FailedPrecondition, "job_id: Slurm job %d is %s", r.Job, job.State)
		case r.Account == "" || r.Account == job.Account:
			r.Account, r.Checked = job.Account, true
		}
	}
	if denied := s.restrict(r); denied != nil {
		return nil, denied
	}
	mine := 0
	for _, l := range s.table.Leases() {
		if l.Request.UID == r.UID {
			mine++
		}
	}
	if mine >= s.cfg.MaxLeasesPerUser {
		return nil, deny("max_leases_per_user", codes.ResourceExhausted, "uid %d has %d leases, the limit of this cluster (limits.max_leases_per_user): release one or let one end", r.UID, mine)
	}
	if totals := s.totals(); len(totals) > 0 {
		if ok, why := placement.Feasible(totals, r.Each); !ok {
			return nil, deny("infeasible", codes.FailedPrecondition, "%s", why)
		}
	}
	l := s.table.Acquire(now, r)
	s.auditedGrant(now, l)
	return l, nil
}

// totals is what each node has in all, after its agent, else after slurmctld.
func (s *state) totals() []policies.Resources {
	var totals []policies.Resources
	for _, n := range s.nodes {
		switch {
		case n.state != nil:
			totals = append(totals, resources(n.state.Total))
		case n.slurm != nil:
			totals = append(totals, policies.Resources{
				Cores: n.slurm.CPUs, MemoryBytes: (n.slurm.MemoryMiB - min(n.slurm.MemoryMiB, n.slurm.SpecMemoryMiB)) << 20, GPUs: n.slurm.GPUs,
			})
		}
	}
	return totals
}
