package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// member marks the environment of every process that the harness starts, so that it is found even when its record is lost.
// Jobs do not inherit it: slurmstepd makes their environment from the submitter's.
const member = "GLEANER_CLUSTER_MEMBER="

// record is what is kept of a process: enough to tell it from a later one with the same number.
type record struct {
	Role  string   `json:"role"`
	PID   int      `json:"pid"`
	Ticks uint64   `json:"start_ticks"` // start time since boot, from /proc/PID/stat
	Args  []string `json:"args"`
}

// children reaps the daemons that this process started, and remembers the sockets that they found in their places.
type children struct {
	wait    sync.WaitGroup
	sockets map[string]os.FileInfo // by role
}

func (c *children) found(d daemon) {
	if c.sockets == nil {
		c.sockets = map[string]os.FileInfo{}
	}
	delete(c.sockets, d.role)
	if info, err := os.Stat(d.socket); d.socket != "" && err == nil {
		c.sockets[d.role] = info
	}
}

// start runs a daemon in a session of its own, with its output in its log.
func (c *Cluster) start(d daemon) error {
	if d.path == "" {
		return fmt.Errorf("start %s: it is not installed; run make deps", d.role)
	}
	log, err := os.OpenFile(c.Log(d.role), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.path, d.args...)
	cmd.Dir = c.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: d.cred}
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C", "TMPDIR=/tmp",
		"SLURM_CONF=" + c.SlurmConf(), member + c.Dir,
	}, d.env...)
	c.children.found(d)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.role, err)
	}
	c.children.wait.Go(func() { _ = cmd.Wait() })
	stat, err := readStat(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("start %s: %w; see %s", d.role, err, c.Log(d.role))
	}
	r := record{Role: d.role, PID: cmd.Process.Pid, Ticks: stat.ticks, Args: cmd.Args}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("proc", fileName(d.role)+".json"), append(text, '\n'), 0o644)
}

func readRecord(path string) (record, error) {
	var r record
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

// alive says whether the recorded process still runs: same number, same start, and no zombie.
func (r record) alive() bool {
	stat, err := readStat(r.PID)
	return err == nil && stat.ticks == r.Ticks && stat.state != 'Z' && stat.state != 'X'
}

func (r record) signal(s syscall.Signal) {
	if r.PID > 1 && r.alive() {
		_ = syscall.Kill(r.PID, s)
	}
}

// stopGrace is how long a daemon has between SIGTERM and SIGKILL.
const stopGrace = 3 * time.Second

// endAll ends processes: SIGTERM, and SIGKILL after the grace. It returns those that remain.
func endAll(records []record, grace time.Duration) []record {
	for _, r := range records {
		r.signal(syscall.SIGTERM)
		r.signal(syscall.SIGCONT) // a stopped process would sit on its SIGTERM
	}
	if left := waitGone(records, grace); len(left) > 0 {
		for _, r := range left {
			r.signal(syscall.SIGKILL)
		}
		return waitGone(left, 5*time.Second)
	}
	return nil
}

func waitGone(records []record, limit time.Duration) []record {
	deadline := time.Now().Add(limit)
	for {
		var left []record
		for _, r := range records {
			if r.alive() {
				left = append(left, r)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type stat struct {
	state byte
	ticks uint64
}

// readStat reads fields 3 and 22 of /proc/PID/stat. The command in field 2 may hold anything, also parentheses.
func readStat(pid int) (stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	text, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	_, rest, _ := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("read %s: %q", path, text)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read %s: %w", path, err)
	}
	return stat{state: fields[0][0], ticks: ticks}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// processes lists what runs, as records, that keep says yes to. It is asked with the environment and the command line.
func processes(keep func(pid int, environ, cmdline []string) bool) []record {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []record
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile("/proc/" + entry.Name() + "/environ")
		if err != nil || len(environ) == 0 {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
		if !keep(pid, strings.Split(string(environ), "\x00"), args) {
			continue
		}
		if stat, err := readStat(pid); err == nil && stat.state != 'Z' {
			found = append(found, record{PID: pid, Ticks: stat.ticks, Args: args})
		}
	}
	return found
}
