package trace

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const swfLog = `; Version: 2.2
; MaxNodes: 4
; MaxProcs: 16
; UnixStartTime: 1000
1 10 5 100 8 -1 1024 8 200 2048 1 1 1 -1 1 1 -1 -1
2 30 -1 50 1 -1 -1 1 -1 -1 1 1 1 -1 1 1 -1 -1

3 40 -1 0 1 -1 -1 1 -1 -1 0 1 1 -1 1 1 -1 -1
`

func TestReadSWF(t *testing.T) {
	got, err := ReadSWF("log", strings.NewReader(swfLog), Shape{Memory: 64 << 30})
	if err != nil {
		t.Fatal(err)
	}
	want := &Trace{
		Origin: time.Unix(1015, 0).UTC(), Span: 100 * time.Second, Nodes: uniform(4, 4, 64<<30),
		Jobs: []Job{
			{Line: 5, Submit: -5 * time.Second, Start: 0, End: 100 * time.Second, Limit: 200 * time.Second, Cores: 8, Memory: 8 << 20, Used: 4 << 20},
			{Line: 6, Submit: 15 * time.Second, Start: 15 * time.Second, End: 65 * time.Second, Cores: 1},
		},
		Notes: []string{"1 jobs without run time or processors are left out.", "The trace does not say which nodes a job had; it gets the lowest-numbered free ones."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var text bytes.Buffer
	if err := WriteSWF(&text, got); err != nil {
		t.Fatal(err)
	}
	again, err := ReadSWF("again", &text, Shape{})
	if err != nil || len(again.Jobs) != 2 || again.Span != got.Span || again.Jobs[1].End != got.Jobs[1].End {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
}

const sacctLog = `JobIDRaw|Submit|Start|End|State|Timelimit|NNodes|NCPUS|AllocTRES|NTasks|MaxRSS|NodeList
12|2026-11-01T07:50:00|2026-11-01T08:00:00|2026-11-01T08:10:00|COMPLETED|01:00:00|2|8|billing=8,cpu=8,mem=16G,node=2|||n[2-3]
12.batch|2026-11-01T08:00:00|2026-11-01T08:00:00|2026-11-01T08:10:00|COMPLETED||1|4|cpu=4,mem=8G,node=1|1|2048K|n2
12.0|2026-11-01T08:00:00|2026-11-01T08:00:00|2026-11-01T08:10:00|COMPLETED||2|8|cpu=8,mem=16G,node=2|4|1G|n[2-3]
13|2026-11-01T08:05:00|Unknown|Unknown|PENDING|1-00:00:00|1|1||||None assigned
14|2026-11-01T08:05:00|2026-11-01T08:20:00|Unknown|RUNNING|UNLIMITED|1|2|cpu=2,mem=1G,node=1|||n1
15|2026-11-01T08:05:00|None|2026-11-01T08:06:00|CANCELLED by 0|10:00|1|2||||None assigned
`

func TestReadSacct(t *testing.T) {
	window := Window{Until: time.Date(2026, 11, 1, 8, 30, 0, 0, time.UTC)}
	got, err := ReadSacct("jobs", strings.NewReader(sacctLog), time.UTC, window, nil, Shape{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Job{
		{
			Line: 2, Submit: -10 * time.Minute, End: 10 * time.Minute, Limit: time.Hour, On: []int32{1, 2}, Cores: 8,
			Memory: 8 << 30, Used: 2 << 30,
		},
		{Line: 6, Submit: 5 * time.Minute, Start: 20 * time.Minute, End: 30 * time.Minute, On: []int32{0}, Cores: 2, Memory: 1 << 30},
	}
	if diff := cmp.Diff(want, got.Jobs); diff != "" {
		t.Error(diff)
	}
	nodes := []Node{{"n1", 2, 1 << 30}, {"n2", 4, 8 << 30}, {"n3", 4, 8 << 30}}
	if diff := cmp.Diff(nodes, got.Nodes); diff != "" {
		t.Error(diff)
	}
	if got.Span != 30*time.Minute || !got.Origin.Equal(time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("from %v for %v", got.Origin, got.Span)
	}
	machine, err := ReadNodes("nodes", strings.NewReader("n1|64|256000\nn2|64|256000+\nn1|64|256000\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = ReadSacct("jobs", strings.NewReader(sacctLog), time.UTC, window, machine, Shape{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Node{{"n1", 64, 256000 << 20}, {"n2", 64, 256000 << 20}}, got.Nodes); diff != "" {
		t.Error(diff)
	}
}

const snapshots = `,date,idle_cpus,allocated_nodes,idle_nodes,other_nodes,total_nodes
0,18-03-22 00:01:40,0,6,3,1,10
1,18-03-22 00:00:00,0,10,0,0,10
2,18-03-22 00:03:20,0,10,0,0,10
3,18-03-22 06:00:00,0,0,10,0,10
`

// TestSnapshots: at each snapshot as many nodes are idle as it says, and nobody knows what was in a long gap.
func TestSnapshots(t *testing.T) {
	list, err := ReadSnapshots("counts", strings.NewReader(snapshots))
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromSnapshots("counts", list, Shape{Cores: 2}, 1)
	if err != nil {
		t.Fatal(err)
	}
	at := func(moment time.Duration) (busy, down int) {
		for _, j := range got.Jobs {
			switch {
			case j.Start > moment || j.End <= moment:
			case j.Down:
				down++
			default:
				busy++
			}
		}
		return busy, down
	}
	for _, want := range []struct {
		moment     time.Duration
		busy, down int
	}{{0, 10, 0}, {100 * time.Second, 6, 1}, {200*time.Second - 1, 10, 0}, {time.Hour, 0, 10}} {
		if busy, down := at(want.moment); busy != want.busy || down != want.down {
			t.Errorf("after %v: %d busy, %d down; want %d, %d", want.moment, busy, down, want.busy, want.down)
		}
	}
	again, err := FromSnapshots("counts", list, Shape{Cores: 2}, 1)
	if err != nil || !cmp.Equal(got, again) {
		t.Errorf("the same seed gives another trace: %v", err)
	}
}

func TestBadTraces(t *testing.T) {
	const job = "1 10 5 100 8 -1 -1 8 200 -1 1 1 1 -1 1 1 -1 -1\n"
	const head = "JobIDRaw|Start|End|NNodes|NCPUS|NodeList\n"
	swf := func(text string) error {
		_, err := ReadSWF("f", strings.NewReader(text), Shape{Nodes: 2, Cores: 4})
		return err
	}
	sacct := func(text string) error {
		_, err := ReadSacct("f", strings.NewReader(text), time.UTC, Window{}, nil, Shape{})
		return err
	}
	counts := func(text string) error { _, err := ReadSnapshots("f", strings.NewReader(text)); return err }
	machine := func(text string) error { _, err := ReadNodes("f", strings.NewReader(text)); return err }
	tests := map[string]struct {
		read func(string) error
		text string
		want string
	}{
		"swf, few columns":      {swf, job + "1 2 3\n", "f:2: 3 columns"},
		"swf, no number":        {swf, job + strings.Replace(job, "100", "1oo", 1), `f:2: column 4 is "1oo"`},
		"swf, infinite":         {swf, strings.Replace(job, "100", "inf", 1), `f:1: column 4 is "inf"`},
		"swf, too wide":         {swf, job + strings.Replace(job, " 8 ", " 9 ", 1), "f:2: job of 9 processors on a machine of 8"},
		"swf, empty":            {swf, "; MaxNodes: 4\n", "f:1: no job in it could be used"},
		"swf, beyond all times": {swf, strings.Replace(job, "100", "1e14", 1), "f:1: job from 15 for 1e+14 s"},
		"sacct, no heading":     {sacct, "1|2|3\n", "f:1: no column start"},
		"sacct, few columns":    {sacct, head + "1|2026-11-01T08:00:00\n", "f:2: 2 columns, the heading has 6"},
		"sacct, time":           {sacct, head + "1|yesterday|Unknown|1|1|n1\n", `f:2: Start: time "yesterday"`},
		"sacct, node list":      {sacct, head + "1|2026-11-01T08:00:00|Unknown|1|1|n[1-\n", "f:2: NodeList"},
		"sacct, count":          {sacct, head + "1|2026-11-01T08:00:00|Unknown|many|1|n1\n", `f:2: NNodes: "many"`},
		"sacct, empty":          {sacct, head, "f:1: no job"},
		"snapshots, heading":    {counts, "date,idle_nodes\n", "f:1: no column other_nodes"},
		"snapshots, date":       {counts, "date,idle_nodes,other_nodes,total_nodes\n2022-03-18,1,1,2\n", "f:2: date"},
		"snapshots, sum":        {counts, "date,idle_nodes,other_nodes,total_nodes\n18-03-22 00:00:00,2,1,2\n", "f:2: 2 idle and 1 other of 2 nodes"},
		"snapshots, columns":    {counts, "date,idle_nodes,other_nodes,total_nodes\n18-03-22 00:00:00,2\n", "f: record on line 2"},
		"machine, columns":      {machine, "n1|8\n", "f:1: want NAME|CPUS|MB"},
		"machine, CPUs":         {machine, "n1|8|1000\nn2|0|1000\n", "f:2: node"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := test.read(test.text); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s…", err, test.want)
			}
		})
	}
	if err := swf(""); !errors.Is(err, ErrEmpty) {
		t.Errorf("nothing at all: %v", err)
	}
}

func TestLimit(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "UNLIMITED": 0, "01:30:00": 90 * time.Minute, "2-12:00:00": 60 * time.Hour, "10:30": 630 * time.Second, "15": 15 * time.Minute, "1-6": 30 * time.Hour,
	} {
		if got, err := limit(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "1:2:3:4", "-1-00:00:00", "1:-2:3", "99999999-0"} {
		if got, err := limit(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// holds checks what every trace promises.
func holds(t *testing.T, tr *Trace) {
	t.Helper()
	for i, j := range tr.Jobs {
		if i > 0 && j.Start < tr.Jobs[i-1].Start || j.End <= j.Start || j.Start < 0 || j.End > tr.Span || j.Cores < 0 || j.Whole < 0 || j.Whole > len(tr.Nodes) {
			t.Fatalf("job %d is %+v of a trace of %v", i, j, tr.Span)
		}
		for _, node := range j.On {
			if node < 0 || int(node) >= len(tr.Nodes) {
				t.Fatalf("job %d is on node %d of %d", i, node, len(tr.Nodes))
			}
		}
	}
	for _, n := range tr.Nodes {
		if n.Cores < 1 || n.Memory == 0 {
			t.Fatalf("node %+v", n)
		}
	}
}

func FuzzReadSWF(f *testing.F) {
	f.Add(swfLog)
	f.Add("1 0 -1 1451 128 -1 -1 -1 -1 -1 -1 1 1 -1 -1 -1 -1 -1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if tr, err := ReadSWF("f", strings.NewReader(text), Shape{}); err == nil && len(tr.Nodes) <= 1<<16 {
			holds(t, tr)
		}
	})
}

func FuzzReadSacct(f *testing.F) {
	f.Add(sacctLog)
	f.Add("start|end|nodelist|alloctres\n1700000000|1700000100|n[1-3]|cpu=3,mem=5Gn\n")
	f.Fuzz(func(t *testing.T, text string) {
		if tr, err := ReadSacct("f", strings.NewReader(text), time.UTC, Window{}, nil, Shape{}); err == nil {
			holds(t, tr)
		}
	})
}

func FuzzReadSnapshots(f *testing.F) {
	f.Add(snapshots)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ReadSnapshots("f", strings.NewReader(text))
		if err != nil || len(list) > 8 {
			return
		}
		for i := range list { // the machine's size is not what is tried here
			if list[i].Total > 1<<10 {
				return
			}
		}
		if tr, err := FromSnapshots("f", list, Shape{}, 1); err == nil {
			holds(t, tr)
		}
	})
}

func FuzzReadNodes(f *testing.F) {
	f.Add("n1|64|256000\nn2|64|256000+\n")
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := ReadNodes("f", strings.NewReader(text))
		if (err == nil) != (len(nodes) > 0) {
			t.Fatalf("%d nodes and %v", len(nodes), err)
		}
	})
}
