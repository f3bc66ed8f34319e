package report

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "re port?.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func fill(t *testing.T, s *Store) {
	t.Helper()
	ctx := context.Background()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const gib = 1 << 30
	for n, node := range []string{"n1", "n2", "n3", "n4"} {
		for m := range 240 {
			allocated := 0
			if n == 0 || (n == 1 && m > 150) {
				allocated = 8
			}
			harvested := min(8-allocated, (m*7/60+n)%7)
			check(s.AddInterval(ctx, Interval{
				Node: node, Partition: "main", Start: t0.Add(time.Duration(m) * time.Minute), End: t0.Add(time.Duration(m+1) * time.Minute),
				CPUs: 8, State: Idle, AllocatedCPUs: allocated, HarvestedCPUs: harvested,
				MemoryBytes: 64 * gib, AllocatedMemory: uint64(allocated) * 7 * gib, UsedMemory: uint64(4+allocated*2+harvested) * gib, HarvestedMemory: uint64(harvested) * 2 * gib,
			}))
		}
	}
	for i := range 40 {
		check(s.AddExecutor(ctx, Executor{
			ID: "1-1", User: []string{"ada", "grace", "<b>eve</b>"}[i%3], Account: []string{"physics", "chemistry"}[i%2], Function: "thumbnailer", Cores: 1, Memory: gib,
			Start: t0.Add(time.Duration(i) * time.Minute), End: t0.Add(time.Duration(i+20) * time.Minute), CPUTime: 18 * time.Minute,
			Reason: []string{"released", "evicted", "job_ended"}[i%3], Startup: time.Duration(20+i) * time.Millisecond,
		}))
		check(s.AddClaim(ctx, Claim{Job: uint32(i), Node: "n1", Path: "gate", Time: t0.Add(time.Duration(i) * time.Minute), Duration: time.Duration(i*i) * 10 * time.Microsecond, Evicted: i % 3, Memory: gib, Complete: true}))
	}
	check(s.AddTasks(ctx, Tasks{Lease: 1, Time: t0.Add(time.Minute), OK: 960, Retried: 7}))
	check(s.AddDrain(ctx, Drain{Node: "n3", Time: t0.Add(time.Hour), Reason: "bad disk"}))
}

func TestStoreGivesBackWhatWasPutIn(t *testing.T) {
	s := openStore(t)
	fill(t, s)
	r, err := s.Build(context.Background(), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(4 * 8 * 4 * 3_600_000); r.CPU.Reported != want || r.CPU.Sum() != want {
		t.Errorf("reported %d, sum %d, want %d", r.CPU.Reported, r.CPU.Sum(), want)
	}
	if !r.Since.Equal(t0) || !r.Until.Equal(t0.Add(4*time.Hour)) {
		t.Errorf("window %s to %s", r.Since, r.Until)
	}
	if r.Tasks != (TaskCounts{OK: 960, Retried: 7}) || r.Harm.DrainsOther != 1 || r.Executors != 40 || r.Harm.JobStartDelay.Count != 40 {
		t.Errorf("tasks %+v, harm %+v, %d executors", r.Tasks, r.Harm, r.Executors)
	}
	data, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Errorf("through JSON (-want +got):\n%s", d)
	}
}

func TestStoreProlongsWhatGoesOn(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	iv := Interval{Node: "a", CPUs: 4, State: Idle}
	for i := range 10 {
		iv.Start, iv.End = t0.Add(time.Duration(i)*time.Second), t0.Add(time.Duration(i+1)*time.Second)
		iv.HarvestedCPUs = i / 5
		if err := s.AddInterval(ctx, iv); err != nil {
			t.Fatal(err)
		}
	}
	var rows int
	if err := s.db.QueryRow("SELECT count(*) FROM intervals").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows (%v), want 2", rows, err)
	}
	r, err := s.Build(ctx, time.Time{}, time.Time{})
	if err != nil || r.CPU != (Slices{Harvested: 5000, Idle: 35000, Reported: 40000}) || len(r.Quality.Gaps) != 0 {
		t.Errorf("got %+v, gaps %v, error %v", r.CPU, r.Quality.Gaps, err)
	}
	iv.End = iv.Start
	if err := s.AddInterval(ctx, iv); err == nil {
		t.Error("an interval without length is taken")
	}
}

func TestStorePrunes(t *testing.T) {
	s := openStore(t)
	fill(t, s)
	ctx := context.Background()
	if err := s.Prune(ctx, t0.Add(10*time.Hour)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Build(ctx, t0, t0.Add(4*time.Hour))
	if err != nil || !r.Empty() || r.Harm != (Harm{}) || r.Tasks != (TaskCounts{}) {
		t.Errorf("after pruning all: %+v, error %v", r, err)
	}
}

func TestStoreIsUsedByMany(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				if err := s.AddTasks(context.Background(), Tasks{Lease: uint64(w), Time: t0.Add(time.Duration(i)), OK: 1}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			if _, err := s.Build(context.Background(), t0, t0.Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := s.Build(context.Background(), t0, t0.Add(time.Hour))
	if err != nil || r.Tasks.OK != 100 {
		t.Errorf("tasks %+v, error %v; want 100", r.Tasks, err)
	}
}

// TestStoreKeepsEachRecordOnce: what is sent again is not counted again, and what was assumed of a lost node gives way.
func TestStoreKeepsEachRecordOnce(t *testing.T) {
	path, ctx := filepath.Join(t.TempDir(), "r.db"), context.Background()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	assumed := Executor{ID: "1-1", Node: "a", Start: t0, End: t0.Add(time.Minute), Reason: NodeLost}
	told := Executor{ID: "1-1", Node: "a", Start: t0.Add(time.Second), End: t0.Add(time.Hour), Reason: "stopped"}
	claim := Claim{Job: 1, Node: "a", Path: "gate", Time: t0}
	if _, err := s.db.Exec("DROP INDEX executors_once; DROP INDEX claims_once; PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as a program before these indexes did
		for _, err := range []error{s.AddExecutor(ctx, assumed), s.AddClaim(ctx, claim)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.db.Exec("ALTER TABLE executors DROP COLUMN spin"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for range 2 {
		for _, err := range []error{s.AddExecutor(ctx, told), s.AddClaim(ctx, claim)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	var executors, claims int
	var reason string
	if err := s.db.QueryRow("SELECT count(*), max(reason), (SELECT count(*) FROM claims) FROM executors").Scan(&executors, &reason, &claims); err != nil {
		t.Fatal(err)
	}
	if executors != 1 || claims != 1 || reason != "stopped" {
		t.Errorf("%d executors (%s), %d claims; want one of each, the one that was told", executors, reason, claims)
	}
}

func TestOpenRefusesANewerStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	for want := range 2 {
		s, err := Open(path)
		if want == 1 {
			if err == nil || !strings.Contains(err.Error(), "schema version 99") {
				t.Fatalf("got %v, want the schema version refused", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, doc := range []string{`{}`, `{"schema":"gleaner.report/2"}`, `{"schema":"other/1"}`, `{"schema":"gleaner.report/x"}`} {
		if _, err := Decode([]byte(doc)); !errors.Is(err, ErrSchema) {
			t.Errorf("%s: got %v, want ErrSchema", doc, err)
		}
	}
	if _, err := Decode([]byte("no")); err == nil {
		t.Error("no JSON is taken")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schema":"gleaner.report/1","cpu_ms":{"idle":3,"reported":3},"nodes":[{"node":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		for _, write := range writers(r) {
			var b strings.Builder
			if err := write(&b); err != nil {
				t.Error(err)
			}
		}
	})
}
