package evict

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
)

var at = time.Unix(1000, 0)

func TestPlan(t *testing.T) {
	victims := []ledger.Executor{{ID: "1-2", Memory: 5}, {ID: "1-1", Memory: 7}, {ID: "parked-1", Memory: 3, Parked: true}}
	tests := map[string]struct {
		hold   ledger.Hold
		wanted time.Duration
		policy Policy
		want   Plan
	}{
		"exact": {
			hold: ledger.Hold{Job: 12, Cores: coreset.Range(0, 4), Memory: 512 << 20},
			want: Plan{Job: 12, Kill: []string{"1-2", "1-1", "parked-1"}, Evicted: []string{"1-2", "1-1"}, Bytes: 12, Reason: "evicted: job 12 needed cores 0-3 and 512 MiB", Deadline: at.Add(DefaultDeadline)},
		},
		"blunt": {
			hold: ledger.Hold{Job: 12, All: true}, wanted: time.Second,
			want: Plan{Job: 12, Kill: []string{"1-2", "1-1", "parked-1"}, Evicted: []string{"1-2", "1-1"}, Bytes: 12, Reason: "evicted: job 12 needed the node, its cores are not known", Deadline: at.Add(DefaultDeadline)},
		},
		"GPUs, capped grace": {
			hold: ledger.Hold{Job: 3, GPUs: coreset.Of(1)}, wanted: time.Second, policy: Policy{Deadline: 2 * time.Second, MaxGrace: 5 * time.Millisecond},
			want: Plan{Job: 3, Kill: []string{"1-2", "1-1", "parked-1"}, Evicted: []string{"1-2", "1-1"}, Bytes: 12, Reason: "evicted: job 3 needed GPUs 1", Grace: 5 * time.Millisecond, Deadline: at.Add(2 * time.Second)},
		},
		"grace never eats the deadline": {
			hold: ledger.Hold{Job: 3, GPUs: coreset.Of(1)}, wanted: time.Hour, policy: Policy{Deadline: time.Second, MaxGrace: time.Minute},
			want: Plan{Job: 3, Kill: []string{"1-2", "1-1", "parked-1"}, Evicted: []string{"1-2", "1-1"}, Bytes: 12, Reason: "evicted: job 3 needed GPUs 1", Grace: GraceWindow, Deadline: at.Add(time.Second)},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, New(test.hold, victims, at, test.wanted, test.policy)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBook(t *testing.T) {
	var b Book
	b.Open(Ticket{ID: 1, Job: 10, Deadline: at.Add(2 * time.Second)})
	b.Open(Ticket{ID: 2, Job: 11, Deadline: at.Add(1 * time.Second)})
	b.Open(Ticket{ID: 3, Job: 10, Deadline: at.Add(3 * time.Second)})
	b.Open(Ticket{ID: 4, Job: 12, Deadline: at.Add(4 * time.Second)})
	if got := b.Next(); !got.Equal(at.Add(time.Second)) {
		t.Errorf("next deadline %v", got)
	}
	check := func(what string, got []Verdict, complete bool, want ...uint64) {
		t.Helper()
		var ids []uint64
		for _, v := range got {
			ids = append(ids, v.ID)
			if v.Complete != complete {
				t.Errorf("%s: ticket %d complete %v", what, v.ID, v.Complete)
			}
		}
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	check("nobody is clear", b.Settle(func(uint32) bool { return false }), true)
	blocking := func(job uint32) []string {
		return map[uint32][]string{10: {"1-1"}, 11: {"1-2"}, 12: {"1-1", "1-3"}}[job]
	}
	check("another's kill failed", b.Fail([]string{"9-9"}, blocking), false)
	check("one kill failed", b.Fail([]string{"1-3"}, blocking), false, 4)
	check("both claims of a job at once", b.Settle(func(job uint32) bool { return job == 10 }), true, 1, 3)
	check("not yet", b.Expire(at), false)
	check("deadline", b.Expire(at.Add(time.Second)), false, 2)
	if !b.Next().IsZero() {
		t.Error("book is not empty")
	}
}
