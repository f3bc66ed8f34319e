package batch

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

func TestExpand(t *testing.T) {
	file := func(path string) Item { return Item{Index: 3, Name: path, path: path} }
	tests := map[string]struct {
		template, want, err string
		item                Item
	}{
		"stem":              {"out/{stem}.jpg", "out/a.jpg", "", file("in/a.png")},
		"name and index":    {"out/{index}-{name}", "out/3-a.png", "", file("in/a.png")},
		"ext":               {"{stem}-small{ext}", "a-small.png", "", file("in/a.png")},
		"folder":            {"out/{dir}/{name}", "out/in/x/a.png", "", file("in/x/a.png")},
		"absolute folder":   {"out/{dir}/{name}", "out/data/a.png", "", file("/data/a.png")},
		"beside its input":  {"{dir}/{stem}.txt", "/data/a.txt", "", file("/data/a.png")},
		"line":              {"out/{index}", "out/3", "", Item{Index: 3, Name: "line 3", line: "x"}},
		"braces":            {"out/{{{stem}}}", "out/{a}", "", file("a.b")},
		"explicit parent":   {"../out/{stem}", "../out/a", "", file("in/a.png")},
		"escape by folder":  {"out/{dir}/{name}", "", "outside of out", file("../../etc/a.png")},
		"escape by text":    {"out/{stem}/../../x", "", "outside of out", file("a.png")},
		"the folder itself": {"out/{stem}", "", "outside of out", file("in/..png")},
		"unknown field":     {"out/{base}", "", "no field {base}", file("a")},
		"unpaired":          {"out/{stem", "", "unpaired brace", file("a")},
		"closing alone":     {"out/stem}", "", "unpaired brace", file("a")},
		"no field":          {"out/{}", "", "names no field", file("a")},
		"empty":             {"", "", "is empty", file("a")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			parsed, err := ParseTemplate(test.template)
			got := ""
			if err == nil {
				got, err = parsed.Expand(test.item)
			}
			if got != test.want || (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %q, %v; want %q, %q", got, err, test.want, test.err)
			}
		})
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("out/{dir}/{stem}.jpg", "in/a.png")
	f.Add("out/{{{name}}}", "../x")
	f.Fuzz(func(t *testing.T, text, input string) {
		parsed, err := ParseTemplate(text)
		if err != nil || strings.ContainsRune(text+input, 0) || input == "" {
			return
		}
		out, err := parsed.Expand(Item{Index: 1, Name: input, path: input})
		if err != nil || parsed.parts[0].field == "dir" {
			return
		}
		if !within(parsed.root, out) {
			t.Errorf("%q of %q leaves %q: %q", text, input, parsed.root, out)
		}
	})
}

func TestPlanRefuses(t *testing.T) {
	dir := t.TempDir()
	a, b := write(t, dir, "x/a.png", "A"), write(t, dir, "y/a.png", "B")
	tests := map[string]struct{ template, want string }{
		"same file":       {filepath.Join(dir, "out/{stem}"), "would both write"},
		"constant":        {filepath.Join(dir, "out/all"), "would both write"},
		"overwrite input": {"{dir}/{name}", "overwrite the input"},
		"a folder":        {"{dir}", "outside of"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			items, err := Files([]string{a, b})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := NewPlan(items, test.template, false); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Files([]string{a, dir, filepath.Join(dir, "none")}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("a folder and a missing file: %v", err)
	}
}

func TestLines(t *testing.T) {
	items, err := Lines(strings.NewReader("one\r\n\nthree\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Item{{Index: 1, Name: "line 1", line: "one"}, {Index: 3, Name: "line 3", line: "three"}}
	if diff := cmp.Diff(want, items, cmp.AllowUnexported(Item{})); diff != "" {
		t.Error(diff)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := Write(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeLease answers each task in upper case; "bad" fails; after lives tasks the lease ends.
type fakeLease struct {
	lives    int
	why      error
	released *int
}

func (*fakeLease) ID() uint64                      { return 7 }
func (*fakeLease) Counts() client.Counts           { return client.Counts{Retried: 1, Evicted: 2} }
func (l *fakeLease) Release(context.Context) error { *l.released++; return nil }
func (l *fakeLease) Map(ctx context.Context, tasks iter.Seq[client.Task], each func(client.Result)) error {
	index := uint64(0)
	for t := range tasks {
		r := client.Result{Index: index, Name: t.Name}
		index++
		if l.lives == 0 {
			r.Err = l.why
			each(r)
			return l.why
		}
		l.lives--
		input, err := t.Load()
		r.Output, r.Err = []byte(strings.ToUpper(string(input))), err
		if string(input) == "bad" {
			r.Err = &client.FunctionError{Detail: "bad input"}
		}
		each(r)
	}
	return nil
}

func inputs(t *testing.T, dir string, texts ...string) []Item {
	t.Helper()
	items, err := Lines(strings.NewReader(strings.Join(texts, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func runPlan(t *testing.T, items []Item, template string, leases ...*fakeLease) (Summary, error) {
	t.Helper()
	plan, err := NewPlan(items, template, false)
	if err != nil {
		t.Fatal(err)
	}
	next, released := 0, 0
	summary, err := Run(t.Context(), Config{Plan: plan, Acquire: func(context.Context) (Lease, error) {
		if next == len(leases) {
			return nil, client.ErrUnreachable
		}
		leases[next].released = &released
		next++
		return leases[next-1], nil
	}})
	if released != next {
		t.Errorf("%d leases acquired, %d released", next, released)
	}
	return summary, err
}

func TestRunResumes(t *testing.T) {
	dir := t.TempDir()
	template := filepath.Join(dir, "out/{index}")
	items := inputs(t, dir, "a", "b", "bad", "d")
	job := &client.EndedError{Lease: 7, Reason: api.EndReason_JOB_ENDED, Detail: "job 3 is over"}
	ignore := cmpopts.IgnoreFields(Summary{}, "Seconds")

	got, err := runPlan(t, items, template, &fakeLease{lives: 3, why: job})
	if !errors.Is(err, client.ErrEnded) {
		t.Errorf("got %v", err)
	}
	failures := []Failure{{Task: "7.2", Input: "line 3", Error: (&client.FunctionError{Detail: "bad input"}).Error()}}
	want := Summary{Schema: "gleaner.map/1", Lease: 7, Tasks: 4, OK: 2, Failed: 1, Left: 1, Retried: 1, Evictions: 2, Ended: job.Error(), Failures: failures}
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Error(diff)
	}

	got, err = runPlan(t, items, template, &fakeLease{lives: 9})
	failures[0].Task = "7.0"
	want = Summary{Schema: "gleaner.map/1", Lease: 7, Tasks: 4, OK: 1, Failed: 1, Skipped: 2, Retried: 1, Evictions: 2, Failures: failures}
	if diff := cmp.Diff(want, got, ignore); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "out/4")); err != nil || string(text) != "D" {
		t.Errorf("result is %q, %v", text, err)
	}
}

func TestFailEmpty(t *testing.T) {
	for _, fail := range []bool{false, true} {
		output := filepath.Join(t.TempDir(), "out")
		plan := &Plan{Items: []Item{{Index: 1, Name: "nothing", Output: output}}}
		released := 0
		s, err := Run(t.Context(), Config{Plan: plan, FailEmpty: fail, Acquire: func(context.Context) (Lease, error) {
			return &fakeLease{lives: 1, released: &released}, nil
		}})
		_, missing := os.Stat(output)
		if err != nil || (s.Failed == 1) != fail || errors.Is(missing, os.ErrNotExist) != fail {
			t.Errorf("fail %t: %+v, %v, %v", fail, s, err, missing)
		}
	}
}

// Results are written beside each other: the first two wait for one another.
func TestResultsAreWrittenTogether(t *testing.T) {
	dir := t.TempDir()
	plan, err := NewPlan(inputs(t, dir, "a", "b", "c"), filepath.Join(dir, "out{index}"), false)
	if err != nil {
		t.Fatal(err)
	}
	var met sync.WaitGroup
	met.Add(2)
	var calls atomic.Int32
	released := 0
	s, err := Run(t.Context(), Config{
		Plan: plan, Acquire: func(context.Context) (Lease, error) { return &fakeLease{lives: 3, released: &released}, nil },
		Write: func(path string, data []byte) error {
			if calls.Add(1) > 2 {
				return errors.New("disk is full")
			}
			met.Done()
			together := make(chan struct{})
			go func() { met.Wait(); close(together) }()
			select {
			case <-together:
				return Write(path, data)
			case <-time.After(20 * time.Second):
				return errors.New("written one after the other")
			}
		},
	})
	if err != nil || s.OK != 2 || s.Failed != 1 || s.Failures[0].Error != "disk is full" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestRunReplacesALostLease(t *testing.T) {
	dir := t.TempDir()
	expired := &client.EndedError{Lease: 7, Reason: api.EndReason_EXPIRED}
	got, err := runPlan(t, inputs(t, dir, "a", "b", "c"), filepath.Join(dir, "{index}"),
		&fakeLease{lives: 1, why: expired}, &fakeLease{lives: 1, why: expired}, &fakeLease{lives: 1})
	if err != nil || got.OK != 3 || got.Left != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = runPlan(t, inputs(t, dir, "a", "b", "c", "d"), filepath.Join(dir, "x{index}"),
		&fakeLease{why: expired}, &fakeLease{why: expired}, &fakeLease{why: expired})
	if !errors.Is(err, client.ErrEnded) || got.Left != 4 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A map that is under way waits for its broker to come back, one that has not begun does not.
func TestRunWaitsForItsBroker(t *testing.T) {
	dir := t.TempDir()
	plan, err := NewPlan(inputs(t, dir, "a", "b"), filepath.Join(dir, "{index}"), false)
	if err != nil {
		t.Fatal(err)
	}
	expired, released := &client.EndedError{Lease: 7, Reason: api.EndReason_EXPIRED}, 0
	answers := []any{&fakeLease{lives: 1, why: expired, released: &released}, client.ErrUnreachable, &fakeLease{lives: 1, released: &released}}
	acquire := func(context.Context) (Lease, error) {
		answer := answers[0]
		answers = answers[1:]
		if err, failed := answer.(error); failed {
			return nil, err
		}
		return answer.(*fakeLease), nil
	}
	got, err := Run(t.Context(), Config{Plan: plan, Patience: time.Minute, Acquire: acquire})
	if err != nil || got.OK != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	answers = []any{client.ErrUnreachable}
	plan.Items = inputs(t, dir, "c")
	if got, err = Run(t.Context(), Config{Plan: plan, Patience: time.Minute, Acquire: acquire}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestEveryTaskOneOutcome runs maps over leases that end at random: the sums are right whatever happens.
func TestEveryTaskOneOutcome(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		texts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "bad"}), 1, 20).Draw(rt, "inputs")
		var leases []*fakeLease
		for _, lives := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 5).Draw(rt, "lives") {
			leases = append(leases, &fakeLease{lives: lives, why: &client.EndedError{Reason: api.EndReason_EXPIRED}})
		}
		items := inputs(t, dir, texts...)
		s, err := runPlan(t, items, filepath.Join(dir, strings.Repeat("r", round%200+1), "{index}"), leases...)
		if s.OK+s.Failed+s.Skipped+s.Left != len(texts) || (err == nil) != (s.Left == 0) || len(s.Failures) != s.Failed {
			rt.Errorf("%+v, %v", s, err)
		}
	})
}
