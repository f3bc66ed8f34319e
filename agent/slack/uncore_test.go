package slack

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// memoryController is a PMU as Intel's servers have it: 64 bytes a count.
func memoryController(texts map[string]string, name, cpus string, kind int, events map[string]string) {
	dir := devices + "/" + name
	texts[dir+"/type"], texts[dir+"/cpumask"] = fmt.Sprintln(kind), cpus+"\n"
	texts[dir+"/format/event"], texts[dir+"/format/umask"] = "config:0-7\n", "config:8-15,32-55\n"
	texts[dir+"/format/edge"] = "config:18\n"
	texts[dir+"/events/clockticks"] = "event=0xff,umask=0x00\n"
	for event, text := range events {
		texts[dir+"/events/"+event] = text + "\n"
		texts[dir+"/events/"+event+".scale"], texts[dir+"/events/"+event+".unit"] = "6.103515625e-5\n", "MiB\n"
	}
}

var reads = map[string]string{"cas_count_read": "event=0x04,umask=0x03", "cas_count_write": "event=0x04,umask=0x0c"}

// controllersFake is perf: counters by what they count.
type controllersFake struct {
	counters map[string]*counterFake
	refuse   string // what is not opened
	fails    error
}

type counterFake struct {
	count  Count
	err    error
	closed bool
}

func (f *controllersFake) open(e Event) (Counter, error) {
	key := fmt.Sprintf("%d/%#x/%d", e.Type, e.Config[0], e.CPU)
	if f.fails != nil && (f.refuse == "" || f.refuse == key) {
		return nil, f.fails
	}
	c := &counterFake{}
	if f.counters == nil {
		f.counters = map[string]*counterFake{}
	}
	f.counters[key] = c
	return c, nil
}

func (f *controllersFake) opened() []string {
	var keys []string
	for key, c := range f.counters {
		if !c.closed {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (c *counterFake) Read() (Count, error) { return c.count, c.err }
func (c *counterFake) Close() error         { c.closed = true; return nil }

// Which counters are opened, and what a sample says of the source.
func TestControllers(t *testing.T) {
	denied := fmt.Errorf("perf_event_open: %w", unix.EACCES)
	for name, test := range map[string]struct {
		make          func(texts map[string]string)
		perf          controllersFake
		opened        []string
		source, blind string // blind: a part of it
	}{
		"two sockets, two controllers": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0,18", 20, reads)
			memoryController(m, "uncore_imc_1", "0,18", 21, reads)
			memoryController(m, "uncore_cha_0", "0,18", 22, reads)
		}, opened: []string{"20/0x304/0", "20/0x304/18", "20/0xc04/0", "20/0xc04/18", "21/0x304/0", "21/0x304/18", "21/0xc04/0", "21/0xc04/18"}, source: "perf"},
		"bits that lie apart": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, map[string]string{"cas_count_read": "event=0x05,umask=0x1cf", "cas_count_write": "event=5,umask=0xf0,edge"})
		}, opened: []string{"20/0x10000cf05/0", "20/0x4f005/0"}, source: "perf"},
		"two channels of a controller": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, map[string]string{
				"cas_count_read_sch0": "event=0x05,umask=0xcf", "cas_count_read_sch1": "event=0x06,umask=0xcf",
				"cas_count_write_sch0": "event=0x05,umask=0xf0", "cas_count_write_sch1": "event=0x06,umask=0xf0",
			})
		}, opened: []string{"20/0xcf05/0", "20/0xcf06/0", "20/0xf005/0", "20/0xf006/0"}, source: "perf"},
		"nothing counts twice": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, reads)
			memoryController(m, "uncore_imc_free_running_0", "0", 21, map[string]string{"data_read": "event=0xff,umask=0x20", "data_write": "event=0xff,umask=0x30", "data_total": "event=0xff,umask=0x10"})
		}, opened: []string{"20/0x304/0", "20/0xc04/0"}, source: "perf"},
		"a desktop": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc", "0", 9, map[string]string{"data_reads": "event=0x01", "data_writes": "event=0x02", "gt_requests": "event=0x03"})
		}, opened: []string{"9/0x1/0", "9/0x2/0"}, source: "perf"},
		"AMD's, which name no events": {make: func(m map[string]string) {
			m[devices+"/amd_umc_0/type"], m[devices+"/amd_umc_0/cpumask"] = "30\n", "0\n"
			m[devices+"/amd_umc_0/format/event"] = "config:0-7\n"
		}, blind: "no memory controller"},
		"AMD's, should they name them": {make: func(m map[string]string) {
			memoryController(m, "amd_umc_0", "0", 30, map[string]string{"data_read": "event=0x0a,umask=1", "data_write": "event=0x0a,umask=2"})
		}, opened: []string{"30/0x10a/0", "30/0x20a/0"}, source: "perf"},
		"resctrl comes first": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, reads)
			m["sys/fs/resctrl/mon_data/mon_L3_00/mbm_total_bytes"] = "300\n"
		}, source: "resctrl"},
		"resctrl without bandwidth": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, reads)
			m["sys/fs/resctrl/mon_data/mon_L3_00/llc_occupancy"] = "300\n"
		}, opened: []string{"20/0x304/0", "20/0xc04/0"}, source: "perf"},
		"no leave": {make: func(m map[string]string) { memoryController(m, "uncore_imc_0", "0", 20, reads) },
			perf: controllersFake{fails: denied}, blind: "uncore_imc_0/cas_count_read on CPU 0: perf_event_open: permission denied"},
		"leave for some": {make: func(m map[string]string) { memoryController(m, "uncore_imc_0", "0", 20, reads) },
			perf: controllersFake{fails: denied, refuse: "20/0xc04/0"}, blind: "uncore_imc_0/cas_count_write on CPU 0"},
		"a virtual machine": {make: func(map[string]string) {}, blind: "/sys/fs/resctrl is not mounted or has no mbm_total_bytes, and no memory controller's counters are in /sys/bus/event_source"},
		"a unit that nobody knows": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, reads)
			m[devices+"/uncore_imc_0/events/cas_count_read.unit"] = "Joules\n"
		}, blind: `uncore_imc_0/cas_count_read: unit "Joules"`},
		"a format that nobody knows": {make: func(m map[string]string) {
			memoryController(m, "uncore_imc_0", "0", 20, reads)
			m[devices+"/uncore_imc_0/format/umask"] = "config9:0-7\n"
		}, blind: "uncore_imc_0/cas_count_read"},
	} {
		t.Run(name, func(t *testing.T) {
			texts := map[string]string{}
			test.make(texts)
			s := New(Config{FS: tree(texts), Counters: test.perf.open})
			got := s.Sample(start)
			if diff := cmp.Diff(test.opened, test.perf.opened()); diff != "" {
				t.Errorf("opened: %s", diff)
			}
			if got.Source != test.source || (test.blind == "") != (got.Blind == "") || !strings.Contains(got.Blind, test.blind) {
				t.Errorf("source %q, blind %q", got.Source, got.Blind)
			}
			if missing := slices.Contains(got.Missing, "bandwidth"); missing == (test.source != "") {
				t.Errorf("missing %v", got.Missing)
			}
			s.Close()
			if left := test.perf.opened(); left != nil {
				t.Errorf("left open: %v", left)
			}
		})
	}
}

// Counts become bytes; what was counted for a part of the time only stands for all of it; a counter that is silent is no zero.
func TestControllersCount(t *testing.T) {
	texts := map[string]string{}
	memoryController(texts, "uncore_imc_0", "0", 20, reads)
	perf := controllersFake{}
	s := New(Config{FS: tree(texts), Counters: perf.open})
	defer s.Close()
	second := uint64(time.Second)
	first := s.Sample(start).Bytes
	r, w := perf.counters["20/0x304/0"], perf.counters["20/0xc04/0"]
	for i, step := range []struct {
		read, write Count
		fails       error
		bytes       uint64 // since the first
		missing     bool
	}{
		{read: Count{1000, second, second}, write: Count{500, second, second}, bytes: 1500 * 64},
		{read: Count{2000, 2 * second, 2 * second}, write: Count{600, 2 * second, second + second/2}, bytes: 1500*64 + 1000*64 + 200*64},
		{read: Count{9000, 3 * second, 3 * second}, write: Count{600, 3 * second, second + second/2}, bytes: 1500*64 + 1200*64 + 7000*64, missing: true},
		{read: Count{9000, 4 * second, 4 * second}, write: Count{800, 4 * second, 2*second + second/2}, fails: errors.New("gone"), missing: true, bytes: 8500*64 + 1200*64},
		{read: Count{9001, 5 * second, 5 * second}, write: Count{800, 5 * second, 3*second + second/2}, bytes: 8500*64 + 1200*64},
		{read: Count{9002, 6 * second, 6 * second}, write: Count{800, 6 * second, 4*second + second/2}, bytes: 8500*64 + 1200*64 + 64},
	} {
		r.count, r.err, w.count = step.read, step.fails, step.write
		got := s.Sample(start.Add(time.Duration(i+1) * time.Second))
		if missing := slices.Contains(got.Missing, "bandwidth"); missing != step.missing {
			t.Errorf("step %d: missing %v", i, got.Missing)
		}
		if !step.missing && math.Abs(float64(got.Bytes-first)-float64(step.bytes)) > 2 {
			t.Errorf("step %d: %d bytes, want %d", i, got.Bytes-first, step.bytes)
		}
	}
}

// A source that a site adds later is found without a restart of the agent.
func TestSourceComesLater(t *testing.T) {
	files := tree(nil)
	s := New(Config{FS: files})
	defer s.Close()
	if got := s.Sample(start); got.Source != "" {
		t.Fatalf("source %q", got.Source)
	}
	files["sys/fs/resctrl/mon_data/mon_L3_00/mbm_total_bytes"] = tree(map[string]string{"f": "300\n"})["f"]
	if got := s.Sample(start.Add(time.Second)); got.Source != "" {
		t.Errorf("it looks with each sample")
	}
	if got := s.Sample(start.Add(2 * time.Minute)); got.Source != "resctrl" || got.Blind != "" {
		t.Errorf("source %q, blind %q", got.Source, got.Blind)
	}
}

// One cache that falls silent takes nothing back of what has been counted, nor does it give all at once when it speaks again. One that
// has never spoken is not waited for.
func TestCacheFallsSilent(t *testing.T) {
	root := t.TempDir()
	write := func(cache, text string) {
		t.Helper()
		dir := filepath.Join(root, "sys/fs/resctrl/mon_data", cache)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "mbm_total_bytes"), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mon_L3_00", "1000")
	write("mon_L3_01", "5000")
	write("mon_L3_02", "Unavailable")
	s := New(Config{FS: os.DirFS(root)})
	defer s.Close()
	first := s.Sample(start).Bytes
	for i, step := range []struct {
		a, b    string
		want    uint64
		missing bool
	}{
		{"1100", "5100", 200, false},
		{"1200", "Unavailable", 300, true},
		{"1300", "9000", 400, false},
		{"1400", "9100", 600, false},
		{"10", "9200", 700, true}, // it began anew
		{"30", "9300", 820, false},
	} {
		write("mon_L3_00", step.a)
		write("mon_L3_01", step.b)
		got := s.Sample(start.Add(time.Duration(i+1) * time.Second))
		if missing := slices.Contains(got.Missing, "bandwidth"); got.Bytes-first != step.want || missing != step.missing || missing != (got.Blind != "") {
			t.Errorf("step %d: %d bytes, want %d; missing %t, %q", i, got.Bytes-first, step.want, missing, got.Blind)
		}
	}
}

// TestOpenCounter counts with the kernel's own clock, as far as this machine lets.
func TestOpenCounter(t *testing.T) {
	c, err := OpenCounter(Event{Type: unix.PERF_TYPE_SOFTWARE, Config: [3]uint64{unix.PERF_COUNT_SW_CPU_CLOCK}, CPU: 0})
	if err != nil {
		t.Skip("no counters here: ", err)
	}
	before, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := c.Read()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("it does not grow: %+v, %+v, %v", before, after, err)
		}
		if after.Value > before.Value && after.Enabled > before.Enabled && after.Running > before.Running {
			break
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(); err == nil {
		t.Error("it reads after its end")
	}
}

func FuzzEvent(f *testing.F) {
	f.Add("event=0x04,umask=0x03", "config:0-7,32-35", "6.1e-5")
	f.Add("event", "config1:63", "1")
	f.Fuzz(func(t *testing.T, event, format, scale string) {
		texts := map[string]string{}
		memoryController(texts, "uncore_imc_0", "0", 20, map[string]string{"cas_count_read": event})
		texts[devices+"/uncore_imc_0/format/event"], texts[devices+"/uncore_imc_0/events/cas_count_read.scale"] = format, scale
		found, err := controllers(tree(texts))
		if err == nil && (len(found) != 1 || found[0].bytes <= 0 || math.IsInf(found[0].bytes, 0)) {
			t.Errorf("%+v", found)
		}
	})
}
