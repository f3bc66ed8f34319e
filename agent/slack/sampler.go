package slack

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Config says where to look. Paths are relative to the FS, as fs.FS wants them.
type Config struct {
	FS   fs.FS  // the root file system
	Node string // as slurm.conf names it
	// Counters opens a counter of perf, OpenCounter on a machine; nil: memory bandwidth comes from resctrl or not at all.
	Counters func(Event) (Counter, error)
	// GPUs reads the node's GPUs; nil where there are none.
	GPUs func() ([]GPU, error)
	// Now is the clock for Sample.Took; nil: time.Now.
	Now func() time.Time
}

// Sampler reads samples. It keeps the files of jobs open from one sample to the next, since opening them is most of the cost. It is not
// safe for concurrent use.
type Sampler struct {
	cfg   Config
	jobs  map[string]*group // by the job's folder
	psi   [3]*file          // of the node
	moved bandwidth
	buf   []byte
}

// group is one job's cgroup.
type group struct {
	id     uint32
	v2     bool
	files  [filesOfJob]*file
	absent [filesOfJob]bool
	seen   bool
}

// What is read of a job, by number.
const (
	current = iota
	peak
	stat
	cpu
	psiCPU
	psiMemory
	psiIO
	filesOfJob
)

var (
	namesV2 = [filesOfJob]string{"memory.current", "memory.peak", "memory.stat", "cpu.stat", "cpu.pressure", "memory.pressure", "io.pressure"}
	namesV1 = [filesOfJob]string{"memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.stat", "cpuacct.usage", "", "", ""}
)

// New returns a sampler. Nothing is opened before the first Sample.
func New(cfg Config) *Sampler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Sampler{cfg: cfg, jobs: map[string]*group{}, buf: make([]byte, 16<<10)}
}

// Close closes what is open.
func (s *Sampler) Close() {
	for _, g := range s.jobs {
		g.close()
	}
	clear(s.jobs)
	for _, f := range s.psi {
		f.close()
	}
	s.psi = [3]*file{}
	s.moved.close()
}

// Sample reads everything once.
func (s *Sampler) Sample(now time.Time) Sample {
	began := s.cfg.Now()
	sample := Sample{At: now}
	if !s.discover() {
		sample.Missing = append(sample.Missing, "cgroup")
	}
	for _, g := range s.jobs {
		if job, alive := s.read(g); alive {
			sample.Jobs = append(sample.Jobs, job)
		}
	}
	slices.SortFunc(sample.Jobs, func(a, b Job) int { return cmp.Compare(a.ID, b.ID) })
	s.node(&sample)
	s.moved.sample(s, &sample)
	if s.cfg.GPUs != nil {
		var err error
		if sample.GPUs, err = s.cfg.GPUs(); err != nil {
			sample.Missing = append(sample.Missing, "nvml")
		}
	}
	sample.Took = s.cfg.Now().Sub(began)
	return sample
}

// read takes one job's figures. A job that has just gone is not alive.
func (s *Sampler) read(g *group) (Job, bool) {
	job := Job{ID: g.id, NoWaits: !g.v2}
	value, ok := number(s.content(g, current))
	if !ok {
		return job, false
	}
	job.Memory.Current = value
	job.Memory.Peak, _ = number(s.content(g, peak))
	key := "total_inactive_file "
	if g.v2 {
		key = "inactive_file "
	}
	job.Memory.Working = value - min(value, field(s.content(g, stat), key))
	if !g.v2 {
		nanoseconds, _ := number(s.content(g, cpu))
		job.CPU = time.Duration(nanoseconds)
		return job, true
	}
	job.CPU = time.Duration(field(s.content(g, cpu), "usage_usec ")) * time.Microsecond
	var known bool
	job.Waits.CPU, known = waited(s.content(g, psiCPU))
	job.NoWaits = !known
	job.Waits.Memory, _ = waited(s.content(g, psiMemory))
	job.Waits.IO, _ = waited(s.content(g, psiIO))
	return job, true
}

// content is a file's text, valid until the next call; nil when it is not there.
func (s *Sampler) content(g *group, which int) []byte {
	if g.absent[which] || g.files[which] == nil {
		return nil
	}
	text, err := g.files[which].read(s.cfg.FS, &s.buf)
	if err != nil && !g.files[which].opened {
		g.absent[which] = true
	}
	return text
}

// node reads the node's own PSI.
func (s *Sampler) node(sample *Sample) {
	into := [3]*time.Duration{&sample.Node.CPU, &sample.Node.Memory, &sample.Node.IO}
	for i, name := range [3]string{"cpu", "memory", "io"} {
		if s.psi[i] == nil {
			s.psi[i] = &file{path: "proc/pressure/" + name}
		}
		text, err := s.psi[i].read(s.cfg.FS, &s.buf)
		var known bool
		*into[i], known = waited(text)
		if err != nil || !known {
			sample.Missing = append(sample.Missing, "psi")
			return
		}
	}
	if slices.ContainsFunc(sample.Jobs, func(j Job) bool { return j.NoWaits }) {
		sample.Missing = append(sample.Missing, "psi.job")
	}
}

// file is one that is kept open.
type file struct {
	path   string
	opened bool // once
	f      fs.File
}

// read returns the whole text, in buf, which grows as needed.
func (f *file) read(from fs.FS, buf *[]byte) ([]byte, error) {
	if f.f == nil {
		opened, err := from.Open(f.path)
		if err != nil {
			return nil, err
		}
		f.f, f.opened = opened, true
	}
	n, err := readAt(f.f, *buf)
	if n == len(*buf) {
		*buf = make([]byte, 2*len(*buf))
		return f.read(from, buf)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return (*buf)[:n], nil
}

// readAt reads from the beginning. One call to the kernel makes the whole text of a cgroup's file; asking for its end would make it again.
func readAt(f fs.File, buf []byte) (int, error) {
	if real, ok := f.(*os.File); ok {
		return unix.Pread(int(real.Fd()), buf, 0)
	}
	at, ok := f.(io.ReaderAt)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	n, err := at.ReadAt(buf, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) close() {
	if f != nil && f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
}

func (g *group) close() {
	for _, f := range g.files {
		f.close()
	}
}

// number reads a file that is one number.
func number(text []byte) (uint64, bool) {
	text = bytes.TrimSpace(text)
	value, err := strconv.ParseUint(string(text), 10, 64)
	return value, err == nil
}

// field reads the number behind a key at a line's beginning; 0 when there is none. The key ends with its blank.
func field(text []byte, key string) uint64 {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		text = rest
		if value, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, _ := number(value)
			return n
		}
	}
	return 0
}

// waited reads the total of PSI's line "some".
func waited(text []byte) (time.Duration, bool) {
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	if !bytes.HasPrefix(line, []byte("some ")) {
		return 0, false
	}
	_, total, found := bytes.Cut(line, []byte("total="))
	microseconds, ok := number(total)
	return time.Duration(microseconds) * time.Microsecond, found && ok
}
