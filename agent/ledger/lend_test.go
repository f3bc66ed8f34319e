package ledger

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// TestLending: what is lent never lets executors take what jobs keep, and taking it back names no more executors than needed.
func TestLending(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := New(Config{Cores: 8, Memory: 1000, GPUs: 4, ReserveMemory: 50})
		if err != nil {
			t.Fatal(err)
		}
		m := &lending{l: l, now: time.Unix(1000, 0)}
		t.Repeat(map[string]func(*rapid.T){
			"reserve": m.reserve, "another": m.reserve, "lend": m.lend, "take back": m.lend, "claim": m.claim,
			"release": func(t *rapid.T) { l.Release(m.job(t), m.now) },
			"wait":    func(t *rapid.T) { m.now = m.now.Add(time.Second) },
			"":        m.check,
		})
	})
}

type lending struct {
	l    *Ledger
	now  time.Time
	next int
}

func (m *lending) job(t *rapid.T) uint32 { return uint32(rapid.IntRange(1, 3).Draw(t, "job")) }

func (m *lending) reserve(t *rapid.T) {
	m.next++
	need := Need{1, uint64(rapid.IntRange(50, 500).Draw(t, "memory")), rapid.IntRange(0, 1).Draw(t, "gpus")}
	e, err := m.l.Reserve(fmt.Sprintf("1-%d", m.next), 1, need, m.now)
	if err != nil {
		return
	}
	if kept, held := m.kept(), m.held(); kept+held+50 > 1000 {
		t.Fatalf("%v was given: executors hold %d, jobs keep %d", e, held, kept)
	}
}

// kept is what jobs hold and do not lend, held what executors do.
func (m *lending) kept() uint64 {
	sum := uint64(0)
	for _, h := range m.l.Jobs() {
		sum += h.Memory - m.l.Loan(h.Job).Memory
	}
	return min(sum, 1000)
}

func (m *lending) held() uint64 {
	sum := uint64(0)
	for _, e := range m.l.Executors() {
		sum += e.Memory
	}
	return sum
}

func (m *lending) claim(t *rapid.T) {
	job := m.job(t)
	_, known := m.l.Job(job)
	m.l.Claim(Hold{
		Job: job, Memory: uint64(rapid.IntRange(200, 600).Draw(t, "memory")), Since: m.now, Origin: Gate,
		Cores: coreset.Of(rapid.IntRange(0, 3).Draw(t, "core")), GPUs: coreset.Of(rapid.IntRange(0, 3).Draw(t, "gpu")),
		Share: rapid.SampledFrom([]Share{"", ShareYes, ShareNo}).Draw(t, "share"),
	})
	if !known && m.l.Loan(job).Memory > 0 {
		t.Fatal("a job that has just come lends already")
	}
	m.remove(m.l.Overlap(job))
	if !m.l.Clear(job) {
		t.Fatal("all that overlap are gone, and the job is not clear")
	}
}

func (m *lending) lend(t *rapid.T) {
	job := m.job(t)
	h, _ := m.l.Job(job)
	loan := Loan{Memory: uint64(rapid.IntRange(0, 500).Draw(t, "loan"))}
	if rapid.Bool().Draw(t, "with GPUs") {
		loan.GPUs = coreset.Range(0, 4)
	}
	m.l.Lend(job, loan)
	if got := m.l.Loan(job); got.Memory > h.Memory || h.Share == ShareNo && got.Memory > 0 || !got.GPUs.Minus(h.GPUs).Empty() {
		t.Fatalf("job %+v lends %+v", h, got)
	}
	short := int64(m.kept()+m.held()) - 1000
	victims := m.l.Reclaim(m.now)
	for _, v := range victims {
		if v.GPUs.Empty() && int64(v.Memory) <= m.freed(victims)-max(0, short) {
			t.Fatalf("%v goes in vain: %d are short, %v go", v, short, victims)
		}
	}
	m.remove(victims)
	if again := m.l.Reclaim(m.now); len(again) > 0 {
		t.Fatalf("once all are gone there are more: %v", again)
	}
}

func (m *lending) freed(victims []Executor) int64 {
	sum := int64(0)
	for _, v := range victims {
		sum += int64(v.Memory)
	}
	return sum
}

func (m *lending) remove(victims []Executor) {
	for _, v := range victims {
		m.l.Condemn(v.ID)
		m.l.Remove(v.ID)
	}
}

func (m *lending) check(t *rapid.T) {
	if kept, held := m.kept(), m.held(); kept+held > 1000 {
		t.Fatalf("executors hold %d, jobs keep %d of 1000", held, kept)
	}
	for _, e := range m.l.Executors() {
		for _, h := range m.l.Jobs() {
			if h.GPUs.Minus(m.l.Loan(h.Job).GPUs).Overlaps(e.GPUs) {
				t.Fatalf("%v is on a GPU of %v", e, h)
			}
		}
	}
	borrowed, unused := m.l.Borrowed(), m.l.Unused()
	if borrowed.Memory > m.held() || unused.Memory > m.l.Slurm().Memory {
		t.Fatalf("borrowed %+v, unused %+v", borrowed, unused)
	}
}

func TestReclaimLosesLeast(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		loan uint64 // left of 600
		want []string
	}{
		"nothing is short":         {600, nil},
		"the youngest will do":     {550, []string{"1-3"}},
		"and no more than needed":  {350, []string{"1-2"}},
		"both young ones":          {250, []string{"1-2", "1-3"}},
		"all that was lent at all": {0, []string{"1-1", "1-2", "1-3"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := New(Config{Cores: 8, Memory: 1000})
			if err != nil {
				t.Fatal(err)
			}
			l.Claim(Hold{Job: 7, Memory: 1000, Cores: coreset.Of(0)})
			l.Lend(7, Loan{Memory: 600})
			for i, e := range []struct {
				memory uint64
				age    time.Duration
			}{{200, time.Hour}, {320, time.Minute}, {80, time.Second}} {
				if _, err := l.Reserve(fmt.Sprintf("1-%d", i+1), 1, Need{Cores: 1, Memory: e.memory}, now.Add(-e.age)); err != nil {
					t.Fatal(err)
				}
			}
			l.Lend(7, Loan{Memory: test.loan})
			var ids []string
			for _, v := range l.Reclaim(now) {
				ids = append(ids, v.ID)
			}
			slices.Sort(ids)
			if diff := cmp.Diff(test.want, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRank(t *testing.T) {
	l, err := New(Config{Cores: 8, Memory: 1000})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	for i := range 4 {
		if _, err := l.Reserve(fmt.Sprintf("1-%d", i+1), 1, Need{Cores: 1, Memory: 100}, now.Add(time.Duration(i))); err != nil {
			t.Fatal(err)
		}
	}
	l.Rank([]string{"1-2", "gone", "1-3", "1-1"}) // 1-4 was started since
	for memory, want := range map[uint64][]string{700: {"1-4"}, 800: {"1-4", "1-2"}, 900: {"1-4", "1-2", "1-3"}} {
		l.Claim(Hold{Job: 7, Memory: memory, Cores: coreset.Of(0)})
		var ids []string
		for _, v := range l.Overlap(7) {
			ids = append(ids, v.ID)
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%d: %s", memory, diff)
		}
	}
}
