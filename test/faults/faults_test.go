package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// TestFaults breaks 50 things, or as many as FAULTS says. GLEANER_SEED replays a run, FAULT_KINDS chooses ("kill", "stop agentd").
func TestFaults(t *testing.T) {
	if err := cluster.Available(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("takes minutes")
	}
	lock, err := net.Listen("unix", "@"+folder()) // goes with this process, however that ends
	if err != nil {
		t.Fatalf("another run in this checkout: %v", err)
	}
	defer lock.Close()
	build := cluster.Build()
	cfg := Config{
		Dir: folder(), Seed: number(t, "GLEANER_SEED", uint64(time.Now().UnixNano())), Faults: int(number(t, "FAULTS", 50)),
		Only: os.Getenv("FAULT_KINDS"), Build: os.Getenv("FAULT_BUILD"), Log: t.Logf, Keep: filepath.Join(build, "results", "faults"),
	}
	t.Logf("GLEANER_SEED=%d FAULTS=%d replays this", cfg.Seed, cfg.Faults)
	report, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(build, "results", "faults.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := report.Write(path); err != nil {
		t.Error(err)
	}
	t.Logf("%d faults in %.0f s: maps %+v, jobs %+v; see %s", report.Faults, report.Seconds, report.Maps, report.Jobs, path)
	for _, v := range report.Violations {
		t.Errorf("%.1f s, %s: %s", v.Time, v.Fault, v.What)
	}
	switch {
	case report.Maps.Right == 0 || report.Jobs.OwnerFirst == 0 || report.Maps.Evictions == 0:
		t.Error("nothing was put to the test")
	case report.Jobs.Untold > report.Jobs.Findings/4:
		t.Errorf("the witness could not tell in %d of %d looks", report.Jobs.Untold, report.Jobs.Findings)
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// folder is the same for a checkout each time, so that the next run cleans up after one that was killed.
func folder() string {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	sum := sha256.Sum256([]byte(dir))
	return "/tmp/gleaner-faults-" + hex.EncodeToString(sum[:3])
}

func TestPlan(t *testing.T) {
	a, b := Plan(7, 60, Kinds), Plan(7, 60, Kinds)
	if !slices.Equal(a, b) {
		t.Error("the same seed gives two plans")
	}
	if slices.Equal(a, Plan(8, 60, Kinds)) {
		t.Error("two seeds give one plan")
	}
	seen := map[string]int{}
	for _, f := range a[:len(Kinds)] {
		seen[f.Kind]++
	}
	if len(seen) != len(Kinds) {
		t.Errorf("%d of %d kinds in the first %d faults", len(seen), len(Kinds), len(Kinds))
	}
}
