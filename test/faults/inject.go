package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kinds are those that can be injected here; the report says what cannot.
func (r *run) kinds() []string {
	stepped := r.stepped()
	var kinds []string
	for _, kind := range Kinds {
		how, what, _ := strings.Cut(kind, " ")
		switch {
		case !strings.HasPrefix(kind, r.cfg.Only):
		case how == "step" && stepped[what] == "":
			r.report.Skipped = append(r.report.Skipped, kind+": no "+what+" with a clock that can be stepped is built")
		default:
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func kindOf(fault string) string {
	words := strings.Fields(fault)
	if len(words) < 2 {
		return ""
	}
	return words[0] + " " + words[1]
}

// one injects one fault, ends it, and waits until everything works again.
func (r *run) one(ctx context.Context, n int, f Fault) {
	pause(ctx, f.After)
	node := r.node(f)
	name := f.Kind
	if !global(f.Kind) {
		name += " of " + node
		r.aim.at(node)
	}
	name = fmt.Sprintf("%s, no. %d, for %d ms", name, n, f.For.Milliseconds())
	r.count(func(p *Report) {
		p.Faults++
		r.current = name
		if p.Kinds[f.Kind] == nil {
			p.Kinds[f.Kind] = &Count{}
		}
		p.Kinds[f.Kind].Injected++
	})
	r.cfg.Log("%.1f s: %s", time.Since(r.began).Seconds(), name)
	before := r.pids()
	again, err := r.inject(ctx, f, node)
	if err != nil {
		r.violated("cannot inject: " + err.Error())
	}
	pause(ctx, f.For)
	for _, undo := range again {
		if err := undo(); err != nil {
			r.violated("cannot end the fault: " + err.Error())
		}
	}
	r.aim.at("")
	r.recovered(ctx, f, before)
}

// global says whether a kind has no node.
func global(kind string) bool {
	return strings.HasSuffix(kind, "brokerd") || strings.HasSuffix(kind, "slurmctld") || strings.HasSuffix(kind, "slurmrestd")
}

// node is the fault's: as drawn, or the first from there on which executors run.
func (r *run) node(f Fault) string {
	names := r.c.NodeNames()
	if f.Hosts {
		for i := range names {
			if name := names[(f.Node+i)%len(names)]; len(r.c.Harvested(name)) > 0 {
				return name
			}
		}
	}
	return names[f.Node%len(names)]
}

// role is the cluster's name of what is broken.
func role(what, node string) string {
	if global(what) {
		return what
	}
	return what + "/" + node
}

// inject begins a fault and returns what ends it.
func (r *run) inject(ctx context.Context, f Fault, node string) (undo []func() error, err error) {
	how, what, _ := strings.Cut(f.Kind, " ")
	inside := what == "executors" || what == "workers"
	switch {
	case how == "kill" && inside:
		signal(r.members(what, node), syscall.SIGKILL)
	case how == "stop" && inside:
		pids := r.members(what, node)
		signal(pids, syscall.SIGSTOP)
		return one(func() error { signal(pids, syscall.SIGCONT); return nil }), nil
	case how == "kill":
		if strings.HasPrefix(what, "slurmctld") || strings.HasPrefix(what, "slurmd") {
			r.slurmKills.Add(1)
		}
		if err := r.c.Kill(role(what, node), syscall.SIGKILL); err != nil {
			return nil, err
		}
		return one(func() error { return r.c.Start(context.WithoutCancel(ctx), role(what, node)) }), nil
	case how == "stop":
		err := r.c.Kill(role(what, node), syscall.SIGSTOP)
		return one(func() error { return r.c.Kill(role(what, node), syscall.SIGCONT) }), err
	case how == "fill":
		path, err := fill(r.c.StateDir(role(what, node)))
		return one(func() error { return os.Remove(path) }), err
	case how == "unlink":
		return nil, os.Remove(map[string]string{
			"agentd": r.c.AgentSocket(node), "launch": r.c.LaunchSocket(node), "executors": r.c.ExecutorSocket(node),
		}[what])
	case how == "step":
		path := r.c.ClockFile(role(what, node))
		err := os.WriteFile(path, []byte(strconv.Itoa(int(f.Step.Seconds()))), 0o644)
		return one(func() error { return os.Remove(path) }), err
	case how == "starve":
		return one(r.starve(ctx, role(what, node))), nil
	}
	return nil, nil
}

func one(f func() error) []func() error { return []func() error{f} }

// starve lets a process run for a tenth of the time only, until the returned function is called.
func (r *run) starve(ctx context.Context, role string) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = r.c.Kill(role, syscall.SIGSTOP)
			pause(ctx, 90*time.Millisecond)
			_ = r.c.Kill(role, syscall.SIGCONT)
			pause(ctx, 10*time.Millisecond)
		}
	}()
	return func() error {
		cancel()
		<-done
		return r.c.Kill(role, syscall.SIGCONT)
	}
}

// members are the processes in a node's sandboxes: the supervisors ("executors"), or what runs the functions ("workers").
func (r *run) members(what, node string) []int {
	var pids []int
	for _, group := range r.c.Harvested(node) {
		for _, pid := range group {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if strings.TrimSpace(string(comm)) == strings.TrimSuffix(what, "s") {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return pids
}

func signal(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
}

// fill leaves no byte free in a folder's file system and returns the file that takes the room.
func fill(dir string) (string, error) {
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		return path, err
	}
	defer file.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if n, err := file.Write(block); err != nil || n < len(block) {
			block = block[:len(block)/2]
		}
	}
	return path, nil
}
