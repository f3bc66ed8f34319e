package main

import (
	"testing"
	"time"
)

// TestSummarizeCold: leases of parked sandboxes and of new ones are held against bounds of their own.
func TestSummarizeCold(t *testing.T) {
	r := summarizeCold([]coldRound{
		{parked: true, ready: time.Millisecond, dial: 2 * time.Millisecond, result: 5 * time.Millisecond},
		{parked: true, ready: time.Millisecond, dial: 2 * time.Millisecond, result: 40 * time.Millisecond},
		{parked: false, ready: 20 * time.Millisecond, dial: 2 * time.Millisecond, result: 50 * time.Millisecond},
	})
	if len(r.Rows) != 6 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	if parked := r.Rows[2]; !parked.Parked || parked.Step.P50 != 5 || parked.Step.P99 != 40 || parked.Bound != 10 || parked.Within {
		t.Errorf("parked: %+v", parked)
	}
	if fresh := r.Rows[5]; fresh.Parked || fresh.Step.Samples != 1 || fresh.Bound != 60 || !fresh.Within {
		t.Errorf("new: %+v", fresh)
	}
}
