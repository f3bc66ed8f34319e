package ledger

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// model drives a ledger at random and checks what it promises after each step.
type model struct {
	l    *Ledger
	now  time.Time
	next int
}

const (
	modelCores  = 12
	modelMemory = 1000
)

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := New(Config{Cores: modelCores, Memory: modelMemory, GPUs: 2, ReserveCores: 1, ReserveMemory: 100})
		if err != nil {
			t.Fatal(err)
		}
		m := &model{l: l, now: time.Unix(1000, 0)}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": m.reserve,
			"another": m.reserve,
			"third":   m.reserve,
			"claim":   m.claim,
			"evict":   m.evict,
			"warn":    m.warn,
			"report":  m.report,
			"release": func(t *rapid.T) { m.l.Release(m.job(t), m.now) },
			"remove":  m.remove,
			"condemn": m.condemn,
			"seen":    m.seen,
			"wait": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
				m.l.Settle(m.now)
			},
			"": m.check,
		})
	})
}

func (m *model) job(t *rapid.T) uint32 { return uint32(rapid.IntRange(1, 5).Draw(t, "job")) }

func (m *model) cores(t *rapid.T) coreset.Set {
	return coreset.Of(rapid.SliceOfN(rapid.IntRange(0, modelCores-1), 0, 3).Draw(t, "cores")...)
}

func (m *model) reserve(t *rapid.T) {
	if rapid.Bool().Draw(t, "patient") {
		m.now = m.now.Add(claimWithin)
		m.l.Settle(m.now)
	}
	need := Need{rapid.IntRange(1, 2).Draw(t, "n"), uint64(rapid.IntRange(1, 400).Draw(t, "memory")), rapid.IntRange(0, 1).Draw(t, "gpus")}
	free := m.l.Free(m.now)
	m.next++
	e, err := m.l.Reserve(fmt.Sprintf("1-%d", m.next), 1, need, m.now)
	fits := need.Cores <= free.Cores && need.Memory <= free.Memory && need.GPUs <= free.GPUs
	if fits != (err == nil) {
		t.Fatalf("free says %v, need is %v, reserve says %v", free, need, err)
	}
	if err != nil {
		return
	}
	for _, h := range m.l.Jobs() {
		if h.All || h.Cores.Overlaps(e.Cores) || h.GPUs.Overlaps(e.GPUs) {
			t.Fatalf("reserve gave %v of job %v", e, h)
		}
	}
}

func (m *model) claim(t *rapid.T) {
	h := Hold{Job: m.job(t), Cores: m.cores(t), Memory: uint64(rapid.IntRange(0, 700).Draw(t, "memory")), Since: m.now, Origin: Gate}
	if rapid.Bool().Draw(t, "with a GPU") {
		h.GPUs = coreset.Of(rapid.IntRange(0, 1).Draw(t, "GPU"))
	}
	m.l.Claim(h)
	if rapid.Bool().Draw(t, "at once") {
		m.evictFor(t, h.Job)
	}
}

// TestFewest compares with every subset.
func TestFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []*Executor
		total := uint64(0)
		for i, size := range rapid.SliceOfN(rapid.Uint64Range(1, 20), 1, 8).Draw(t, "sizes") {
			list = append(list, &Executor{ID: fmt.Sprint(i), Memory: size})
			total += size
		}
		need := rapid.Uint64Range(1, total).Draw(t, "need")
		var want []*Executor
		for subset := range 1 << len(list) {
			var chosen []*Executor
			sum := uint64(0)
			for i, e := range list {
				if subset&(1<<i) != 0 {
					chosen = append(chosen, e)
					sum += e.Memory
				}
			}
			better := want == nil || len(chosen) < len(want) || len(chosen) == len(want) && earlier(chosen, want)
			if sum >= need && better {
				want = chosen
			}
		}
		if got := fewest(list, need); !slices.Equal(got, want) {
			t.Fatalf("need %d: got %v, want %v", need, got, want)
		}
	})
}

// earlier compares two choices of the same length by the place of their first difference in the order.
func earlier(a, b []*Executor) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i].ID < b[i].ID
		}
	}
	return false
}

// evict does what the agent does after a claim: the job has its own afterwards, and no more went than had to.
func (m *model) evict(t *rapid.T) { m.evictFor(t, m.job(t)) }

func (m *model) evictFor(t *rapid.T, job uint32) {
	h, held := m.l.Job(job)
	victims := m.l.Overlap(job)
	if m.l.Clear(job) && len(victims) > 0 {
		t.Fatalf("job %d is clear, yet %v should go", job, victims)
	}
	if !held {
		if len(victims) > 0 {
			t.Fatalf("job %d holds nothing, yet %v should go", job, victims)
		}
		return
	}
	condemned := false
	for _, e := range m.l.Executors() {
		condemned = condemned || e.Condemned
	}
	for i, v := range victims {
		if !m.l.Condemn(v.ID) {
			t.Fatalf("victim %v condemned twice", v)
		}
		if !condemned && i+1 < len(victims) {
			m.l.Remove(v.ID)
			if m.l.Clear(job) {
				t.Fatalf("job %v: %d of %v were enough", h, i+1, victims)
			}
		}
	}
	for _, e := range m.l.Executors() {
		if e.Condemned {
			m.l.Remove(e.ID)
		}
	}
	if !m.l.Clear(job) {
		t.Fatalf("job %v not clear after %v went", h, victims)
	}
	for _, e := range m.l.Executors() {
		if h.All || h.Cores.Overlaps(e.Cores) {
			t.Fatalf("job %v shares cores with %v", h, e)
		}
	}
}

func (m *model) warn(t *rapid.T) {
	job := m.job(t)
	before, held := m.l.Job(job)
	m.l.Warn(job, coreset.Of(rapid.IntRange(0, 1).Draw(t, "gpu")), m.now, m.now.Add(5*time.Second))
	if after, _ := m.l.Job(job); held && before.Cores.String() != after.Cores.String() {
		t.Fatalf("warning changed cores from %v to %v", before, after)
	}
}

func (m *model) report(t *rapid.T) {
	r := Report{AsOf: m.now, Local: map[uint32]bool{}}
	for range rapid.IntRange(0, 3).Draw(t, "jobs") {
		h := Hold{Job: m.job(t), Memory: uint64(rapid.IntRange(0, 300).Draw(t, "memory")), CoreCount: 2}
		if rapid.Bool().Draw(t, "exact") {
			h.Cores = m.cores(t)
		}
		r.Jobs = append(r.Jobs, h)
	}
	exact := map[uint32]Hold{}
	for _, h := range m.l.Jobs() {
		if h.Origin == Gate && !h.All {
			exact[h.Job] = h
		}
	}
	m.l.Reconcile(r, m.now)
	for job, was := range exact {
		if is, held := m.l.Job(job); held && is.Cores.String() != was.Cores.String() {
			t.Fatalf("a report changed job %d from %v to %v", job, was, is)
		}
	}
}

// condemn: an executor that dies still holds what it held.
func (m *model) condemn(t *rapid.T) {
	if list := m.l.Executors(); len(list) > 0 {
		e := rapid.SampledFrom(list).Draw(t, "condemned")
		if first := m.l.Condemn(e.ID); first == e.Condemned {
			t.Fatalf("condemn %v: %v", e, first)
		}
	}
}

// seen: nothing is admitted beside a job that runs here and has said nothing.
func (m *model) seen(t *rapid.T) {
	local := map[uint32]bool{}
	for range rapid.IntRange(0, 2).Draw(t, "seen") {
		local[m.job(t)] = true
	}
	for _, job := range m.l.Seen(local, m.now) {
		if h, held := m.l.Job(job); held && (h.All || !h.Cores.Empty()) || !local[job] {
			t.Fatalf("job %d is unheard of, and is %v", job, h)
		}
	}
	if ok, _ := m.l.Admitting(m.now); ok && m.l.Unheard() {
		t.Fatal("admits beside a job that has claimed nothing")
	}
	if len(local) == 0 && m.l.Unheard() {
		t.Fatal("a job that is seen no more is waited for")
	}
}

func (m *model) remove(t *rapid.T) {
	if list := m.l.Executors(); len(list) > 0 {
		m.l.Remove(rapid.SampledFrom(list).Draw(t, "executor").ID)
	}
}

func (m *model) check(t *rapid.T) {
	var cores, gpus coreset.Set
	memory := uint64(0)
	for _, e := range m.l.Executors() {
		if cores.Overlaps(e.Cores) || gpus.Overlaps(e.GPUs) {
			t.Fatalf("two executors share cores or GPUs: %v", m.l.Executors())
		}
		cores, gpus = cores.Or(e.Cores), gpus.Or(e.GPUs)
		memory += e.Memory
	}
	if cores.Has(modelCores-1) || memory > modelMemory-100 {
		t.Fatalf("the reserve is lent: cores %v, %d bytes", cores, memory)
	}
	jobs := uint64(0)
	for _, h := range m.l.Jobs() {
		jobs = min(jobs+h.Memory, modelMemory)
	}
	for _, h := range m.l.Jobs() {
		clear := memory <= modelMemory-jobs && !h.GPUs.Overlaps(gpus) && (!h.All || cores.Empty()) && !h.Cores.Overlaps(cores)
		if got := m.l.Clear(h.Job); got != clear {
			t.Fatalf("job %v: clear says %v beside cores %v, GPUs %v and %d bytes of executors", h, got, cores, gpus, memory)
		}
	}
	leased := m.l.Leased()
	if leased.Cores != cores.Len() || leased.Memory != memory {
		t.Fatalf("leased says %v, executors hold %v, %d", leased, cores, memory)
	}
	if next := m.l.NextChange(m.now); !next.IsZero() && !next.After(m.now) {
		t.Fatalf("next change %v is not after %v", next, m.now)
	}
}
