package slurmctld

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testdata/22.05 holds what slurmrestd, scontrol and squeue of one real cluster said at one moment: ha1 with two threads per core,
// ha2 with two GPUs, ha3 draining under a running job; job 3's name imitates scontrol's text, job 4's a whole record of a job 999.
const recorded = "testdata/22.05"

func file(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func recordedCommands(t testing.TB) *commands {
	answers := map[string]string{
		"scontrol show node": file(t, "nodes.txt"), "scontrol show job": file(t, "jobs.txt"), "squeue -a -h": file(t, "queue.txt"),
	}
	return &commands{
		now: func() time.Time { return time.Unix(1795411004, 0) },
		run: func(_ context.Context, name string, args ...string) (string, error) {
			for start, answer := range answers {
				if strings.HasPrefix(name+" "+strings.Join(args, " "), start) {
					return answer, nil
				}
			}
			return "", fmt.Errorf("unexpected command %s %v", name, args)
		},
	}
}

func textView(t testing.TB) *View {
	t.Helper()
	v, _, err := (&Reader{source: recordedCommands(t), timeout: time.Second}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTextView(t *testing.T) {
	v := textView(t)
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339, "2026-11-23T"+s+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	wantNode := Node{
		Name: "ha3", State: "mixed", Flags: []string{"drain"}, Reason: "bad disk = replace [soon]", Partitions: []string{"main"},
		CPUs: 4, Cores: 4, ThreadsPerCore: 1, AllocatedCPUs: 1, MemoryMiB: 2000, AllocatedMiB: 50, FreeMiB: 22564, CPULoadHundreds: 39,
	}
	if diff := cmp.Diff(wantNode, v.Nodes[2]); diff != "" {
		t.Error(diff)
	}
	want := Job{
		ID: 2, State: "running", User: "root", Partition: "big", Start: at("05:15:56"), End: at("06:15:56"),
		Nodes: []Share{{Node: "ha1", Cores: "1", CoreCount: 1, MiB: 200}, {Node: "ha2", Cores: "0,4", CoreCount: 2, MiB: 200}},
	}
	if diff := cmp.Diff(want, v.Jobs[1]); diff != "" {
		t.Error(diff)
	}
}

// A job's name may hold text that looks like scontrol's own; it never makes a job, an owner or a share.
func TestForgedNames(t *testing.T) {
	v := textView(t)
	var ids []uint32
	for _, job := range v.Jobs {
		ids = append(ids, job.ID)
		if job.UID != 0 || job.User != "root" {
			t.Errorf("job %d belongs to %s(%d)", job.ID, job.User, job.UID)
		}
	}
	if want := []uint32{1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(ids, want) {
		t.Errorf("jobs %v, want %v", ids, want)
	}
	want := []Share{{Node: "ha2", Cores: "1-2,6-7", CoreCount: 4, MiB: 200}, {Node: "ha3", Cores: "0", CoreCount: 1, MiB: 50}}
	if diff := cmp.Diff(want, v.Jobs[2].Nodes); diff != "" {
		t.Error(diff)
	}
	// Job 4's record goes on after a line end in its name: its cores are not told, the node is.
	if diff := cmp.Diff([]Share{{Node: "ha2"}}, v.Jobs[3].Nodes); diff != "" {
		t.Error(diff)
	}
}

// Every REST version tells the same as the text, less what it cannot know.
func TestSourcesAgree(t *testing.T) {
	for _, version := range []int{36, 37, 38} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			rest, err := decodeView([]byte(file(t, fmt.Sprintf("v0.0.%d.nodes.json", version))),
				[]byte(file(t, fmt.Sprintf("v0.0.%d.jobs.json", version))))
			if err != nil {
				t.Fatal(err)
			}
			settle(rest)
			text := textView(t)
			forget(text, version)
			forget(rest, version)
			if diff := cmp.Diff(text.Nodes, rest.Nodes); diff != "" {
				t.Errorf("nodes (-text +rest):\n%s", diff)
			}
			if diff := cmp.Diff(text.Jobs, rest.Jobs); diff != "" {
				t.Errorf("jobs (-text +rest):\n%s", diff)
			}
		})
	}
}

// forget drops what a REST version does not tell, and the shares of job 4, which the text does not.
func forget(v *View, version int) {
	for i := range v.Nodes {
		n := &v.Nodes[i]
		n.SpecMemoryMiB = 0
		if version < 37 {
			n.Partitions, n.Flags, n.CPULoadHundreds = nil, nil, 0
		}
	}
	for i := range v.Jobs {
		if version < 37 {
			v.Jobs[i].User = "" // not told of pending jobs
		}
		if v.Jobs[i].ID == 4 {
			v.Jobs[i].Nodes = nil
		}
		for j := range v.Jobs[i].Nodes {
			if version < 38 {
				v.Jobs[i].Nodes[j].Cores = ""
			}
		}
	}
}

func TestNewerAnswers(t *testing.T) {
	nodes := `{"nodes":[{"name":"n1","state":["MIXED","PLANNED"],"cpus":8,"sockets":2,"cores":4,"threads":1,"alloc_cpus":2,
		"alloc_memory":100,"real_memory":4000,"free_mem":{"set":true,"infinite":false,"number":3000},"cpu_load":7,
		"specialized_memory":64,"gres":"gpu:a100:2(S:0-1)","gres_used":"gpu:a100:1(IDX:1)","partitions":["main"]}],"errors":[]}`
	jobs := `{"jobs":[{"job_id":7,"job_state":["RUNNING"],"user_id":1000,"user_name":"ann","account":"lab","partition":"main",
		"start_time":{"set":true,"infinite":false,"number":1795411000},"end_time":{"set":true,"infinite":false,"number":1795411600},
		"time_limit":{"set":true,"infinite":false,"number":10},"nodes":"n1","gres_detail":["gpu:a100:1(IDX:1)"],
		"job_resources":{"select_type":["CORES"],"nodes":{"count":1,"list":"n1","allocation":[{"index":0,"name":"n1",
		"cpus":{"count":2,"used":0},"memory":{"used":0,"allocated":100},"sockets":[{"index":1,"cores":[
		{"index":0,"status":["ALLOCATED"]},{"index":1,"status":["ALLOCATED","IN_USE"]},{"index":2,"status":["UNALLOCATED"]}]}]}]}}},
		{"job_id":8,"job_state":["CANCELLED"],"user_id":1000},
		{"job_id":9,"job_state":["PENDING"],"user_id":1000,"partition":"main","shared":["none"],"scheduled_nodes":"n[1-2]","nodes":"",
		"start_time":{"set":true,"infinite":false,"number":1795411700}}],"errors":[]}`
	v, err := decodeView([]byte(nodes), []byte(jobs))
	if err != nil {
		t.Fatal(err)
	}
	want := &View{
		Nodes: []Node{{Name: "n1", State: "mixed", Flags: []string{"planned"}, Partitions: []string{"main"}, CPUs: 8, Cores: 8,
			ThreadsPerCore: 1, AllocatedCPUs: 2, MemoryMiB: 4000, SpecMemoryMiB: 64, AllocatedMiB: 100, FreeMiB: 3000, GPUs: 2,
			AllocatedGPUs: 1, CPULoadHundreds: 7}},
		Jobs: []Job{{ID: 7, State: "running", UID: 1000, User: "ann", Account: "lab", Partition: "main",
			Start: time.Unix(1795411000, 0).UTC(), End: time.Unix(1795411600, 0).UTC(),
			Nodes: []Share{{Node: "n1", Cores: "4-5", CoreCount: 2, MiB: 100, GPUs: 1}}},
			{ID: 9, State: "pending", UID: 1000, Partition: "main", Start: time.Unix(1795411700, 0).UTC(), Expected: []string{"n1", "n2"}, Exclusive: true}},
	}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Error(diff)
	}
}

func TestExpectedNodes(t *testing.T) {
	jobs, err := parseQueue("9|PENDING|1000|ann|lab|main|2026-11-23T06:15:54|2026-11-23T06:20:54||n[1-2]|NO\n10|PENDING|1000|ann|lab|main|N/A|N/A||n[|OK\n")
	if err != nil || len(jobs) != 2 || !slices.Equal(jobs[0].Expected, []string{"n1", "n2"}) || !jobs[0].Exclusive || jobs[1].Expected != nil || jobs[1].Exclusive {
		t.Errorf("%+v, %v", jobs, err)
	}
}

func TestNodeState(t *testing.T) {
	for words, want := range map[string]string{
		"IDLE": "idle", "IDLE+DRAIN": "idle drain", "DOWN*": "down not_responding", "IDLE~": "idle powered_down",
		"MIXED+PLANNED": "mixed planned", "IDLE+MAINTENANCE+RESERVED": "idle maint reserved", "DOWN*+DRAIN": "down drain not_responding",
		"INVAL": "unknown inval", "IDLE*-": "idle not_responding planned", "": "unknown",
	} {
		state, flags := nodeState([]string{words})
		if got := strings.Join(append([]string{state}, flags...), " "); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}

// The reader finds the version, sends slurmctld's own time back, and takes 304 for an answer.
func TestUnchanged(t *testing.T) {
	var full, unchanged, pings atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what, ok := strings.CutPrefix(r.URL.Path, "/slurm/v0.0.38/")
		switch {
		case r.Header.Get("X-SLURM-USER-TOKEN") != "secret":
			http.Error(w, "Authentication failure", http.StatusUnauthorized)
		case !ok:
			pings.Add(1)
			http.NotFound(w, r)
		case what == "ping":
		case what == "diag":
			http.ServeFile(w, r, filepath.Join(recorded, "diag.json"))
		case r.URL.Query().Get("update_time") != "":
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
		default:
			full.Add(1)
			http.ServeFile(w, r, filepath.Join(recorded, "v0.0.38."+what+".json"))
		}
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("SLURM_JWT=secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := New(Config{URL: server.URL, TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	first, changed, err := reader.Read(t.Context())
	if err != nil || !changed || len(first.Nodes) != 3 {
		t.Fatalf("first read: %v, changed %v, %v", first, changed, err)
	}
	second, changed, err := reader.Read(t.Context())
	if err != nil || changed || second != first {
		t.Errorf("second read: %v, changed %v", err, changed)
	}
	if full.Load() != 2 || unchanged.Load() != 2 || pings.Load() != 6 {
		t.Errorf("%d full answers, %d unchanged, %d pings of absent versions", full.Load(), unchanged.Load(), pings.Load())
	}
	if err := os.WriteFile(token, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reader.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a bad token: %v", err)
	}
}

// slurmrestd 22.05 fails at update_time when a node has changed and its partition has not.
func TestUnspecifiedError(t *testing.T) {
	var failed, full atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what, ok := strings.CutPrefix(r.URL.Path, "/slurm/v0.0.38/")
		switch {
		case !ok:
			http.NotFound(w, r)
		case what == "ping":
		case what == "diag":
			http.ServeFile(w, r, filepath.Join(recorded, "diag.json"))
		case what == "nodes" && r.URL.Query().Has("update_time"):
			failed.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"errors":[{"error":"Unspecified error"}]}`)
		case r.URL.Query().Has("update_time"):
			w.WriteHeader(http.StatusNotModified)
		default:
			full.Add(1)
			http.ServeFile(w, r, filepath.Join(recorded, "v0.0.38."+what+".json"))
		}
	}))
	defer server.Close()
	reader, err := New(Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if v, _, err := reader.Read(t.Context()); err != nil || len(v.Nodes) != 3 {
			t.Fatalf("read: %v, %v", v, err)
		}
	}
	if failed.Load() != 1 || full.Load() != 3 {
		t.Errorf("%d failed, %d full answers, want 1 and 3", failed.Load(), full.Load())
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{{Source: "x"}, {Source: REST}, {URL: "ftp://x"}, {URL: "localhost:6820"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func FuzzText(f *testing.F) {
	firstLine := func(name string) string {
		line, _, _ := strings.Cut(file(f, name), "\n")
		return line
	}
	f.Add(firstLine("nodes.txt"), firstLine("queue.txt"), firstLine("jobs.txt"))
	f.Add("NodeName=n1 State=MIXED+DRAIN CPUTot=8 CPUAlloc=1 Sockets=2 CoresPerSocket=2 ThreadsPerCore=2 Boards=1 Reason=a b [root@now]",
		"7|RUNNING|1000|ann|lab|main|2026-11-23T05:15:56|NONE|n[1-2]||OK",
		"JobId=7 JobName=x JOB_GRES=gpu:1   Nodes=n[1-2] CPU_IDs=0-3 Mem=10 GRES=gpu:1(IDX:0) MinCPUsNode=1")
	f.Fuzz(func(t *testing.T, nodes, queue, jobs string) {
		v := &View{}
		var err error
		if v.Nodes, err = parseNodes(nodes); err != nil {
			return
		}
		if v.Jobs, err = parseQueue(queue); err != nil {
			return
		}
		count := len(v.Jobs)
		addShares(v, jobs)
		settle(v)
		if len(v.Jobs) != count {
			t.Fatal("details made a job")
		}
	})
}

func FuzzREST(f *testing.F) {
	f.Add([]byte(`{"nodes":[{"name":"n1","state":["MIXED"],"cpus":8,"sockets":2,"cores":4,"alloc_cpus":{"set":true,"number":2}}]}`),
		[]byte(`{"jobs":[{"job_id":7,"job_state":"RUNNING","user_id":1,"nodes":"n1","job_resources":{"nodes":{"allocation":[{"name":"n1",`+
			`"sockets":[{"index":1,"cores":[{"index":0,"status":["ALLOCATED"]}]}]}]}}}]}`))
	f.Add([]byte(`{"nodes":[{"name":"n1","state":"idle","state_flags":["DRAIN"]}]}`),
		[]byte(`{"jobs":[{"job_id":7,"job_state":"RUNNING","user_id":1,"nodes":"n[1-2]","job_resources":{"allocated_nodes":`+
			`{"0":{"sockets":{"5":{"cores":{"0":"allocated"}}},"memory":100,"cpus":3},"1":{"sockets":{"5":"unassigned"}}}}}]}`))
	f.Fuzz(func(t *testing.T, nodes, jobs []byte) {
		if v, err := decodeView(nodes, jobs); err == nil {
			settle(v)
		}
	})
}
