package executor

import (
	"regexp"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// quietTicks is how many ticks without a deadline pass before the supervisor sleeps until it is woken.
const quietTicks = 100

// openTimeout bounds what libfabric takes to open an endpoint.
const openTimeout = 20 * time.Second

// workerEvent is what a worker says.
type workerEvent struct {
	worker  *worker
	command command
}

// start gives a worker the library, if both are there. If that fails every client is told.
func (s *supervisor) start() {
	if err := s.ensureWorker(); err != nil {
		s.fail(ending{kind: kindLoadFailed, text: err.Error()})
		return
	}
	if s.code == nil || s.worker.loading {
		return
	}
	// First, because a worker that has the library is sealed and can open no socket.
	if slices.ContainsFunc(s.everyone(), func(c *client) bool { return c.accept.Carrier == control.CarrierOFI }) {
		s.worker.openFabric()
	}
	if err := s.worker.load(s.assign, s.code); err != nil {
		s.worker.loading = false // it has just died, and another follows
		return
	}
	opening := time.Duration(0)
	if s.worker.fabric && !s.worker.opened {
		opening = openTimeout // of an endpoint, before the worker looks at its library
	}
	s.timeLoading(opening)
}

// timeLoading bounds what the library's constructors take, after a while.
func (s *supervisor) timeLoading(after time.Duration) {
	s.loadEnds = time.Now().Add(after + s.cfg.LoadTimeout)
	s.ticker.Reset(after + s.cfg.LoadTimeout)
}

// ensureWorker starts a worker unless there is one.
func (s *supervisor) ensureWorker() error {
	if s.worker != nil {
		return nil
	}
	w, err := spawn(s.cfg.Worker, s.station)
	if err != nil {
		return err
	}
	s.worker = w
	select {
	case s.forked <- struct{}{}:
	default:
	}
	s.group.Go(func() {
		for {
			c, err := w.receive()
			if err != nil {
				return
			}
			s.post(workerEvent{w, c})
		}
	})
	return nil
}

// fail tells all clients that the library cannot be used, and lets them go; whoever comes again makes another try.
func (s *supervisor) fail(e ending) {
	s.cfg.Log.Info("library cannot be used", "reason", e.text, "kind", e.kind, "signal", e.signal)
	for _, c := range s.everyone() {
		if c.admitted {
			c.send(control.Failed(e.kind, e.signal, e.text))
			c.attached = false
			s.drop(c)
		}
	}
}

// loaded is the path by which the worker loads the library, and the loader names it.
var loaded = regexp.MustCompile(`/proc/self/fd/[0-9]+`)

// named puts the library's own name where the loader has the worker's path of it.
func (s *supervisor) named(text string) string {
	name := "the library"
	if s.assign != nil && s.assign.Name != "" {
		name = s.assign.Name
	}
	return loaded.ReplaceAllLiteralString(text, name)
}

func (s *supervisor) workerSays(m command) {
	w := s.worker
	switch m.op {
	case opLoaded:
		w.serving = true
		s.ticker.Stop()
		for _, c := range s.everyone() {
			if c.attach != nil {
				s.passOn(c)
			} else if c.attached {
				c.attached = false
				c.send(control.Restarted())
			}
		}
	case opFailed:
		w.doomed = &ending{kind: m.status, text: s.named(m.text)}
		w.kill()
	case opAttached:
		c := s.clients[m.connection]
		if c == nil {
			return
		}
		if m.status != 0 {
			s.refuse(c, refusal{refusedAttach, m.text})
			return
		}
		c.send(control.Attach{Key: m.key, Base: m.base, Address: m.address}.Encode(control.TypeAttached))
	case opFabric:
		w.opened = true
		if w.loading && !w.serving {
			s.timeLoading(0)
		}
		s.sayPrepared()
	case opWake:
		s.quiet = 0
		s.watch()
	}
}

// watch looks at the deadline of what runs and at the time that loading takes.
func (s *supervisor) watch() {
	w := s.worker
	if w == nil || w.doomed != nil {
		return
	}
	if !w.loading {
		return
	}
	if !w.serving {
		if left := time.Until(s.loadEnds); left > 0 {
			s.ticker.Reset(left)
			return
		}
		w.doomed = &ending{kind: kindLoadFailed, text: "its constructors did not return within " + s.cfg.LoadTimeout.String()}
		w.kill()
		return
	}
	r, deadline, generation, running := w.state.running()
	next := tick
	if running && deadline != 0 {
		s.quiet = 0
		left := time.Duration(deadline - monotonic())
		if left <= 0 {
			s.condemn(r, generation, ending{kind: kindDeadline})
			return
		}
		next = min(next, max(left, time.Millisecond/2))
	} else if s.quiet++; s.quiet >= quietTicks {
		// The flag goes up first: what begins from now on wakes, what has begun before is seen here.
		w.state.wakeAsleep.Store(1)
		if _, deadline, _, running := w.state.running(); !running || deadline == 0 {
			return
		}
	}
	s.ticker.Reset(next)
}

// condemn ends the request that runs, if it still does, and with it the worker.
func (s *supervisor) condemn(r request, generation uint64, e ending) {
	if s.worker.doomed != nil || !s.worker.state.condemn(generation) {
		s.ticker.Reset(tick)
		return
	}
	s.worker.doomed, s.worker.victim = &e, &r
	s.worker.kill()
}

// exited follows the end of a process; orphans of a function end here too.
func (s *supervisor) exited(e exit) {
	w := s.worker
	if w == nil || e.pid != w.pid {
		return
	}
	w.kill() // what the function has started in its process group
	s.worker = nil
	s.usage.past = plus(s.usage.past, w.state.said())
	s.ticker.Stop()
	end := diagnose(e.status, w.doomed, w.state.faultGuard.Load())
	victim := w.victim
	if r, _, _, running := w.state.running(); victim == nil && running {
		victim = &r
	}
	if victim != nil && (w.victim == nil || end.kind == kindDeadline) && !s.serves(victim.connection) {
		victim, end = nil, overwritten()
	}
	if w.doomed == nil && victim == nil && e.status.Exited() && e.status.ExitStatus() == exitAgain {
		s.notify(w, nil, end)
		w.close()
		s.start()
		return
	}
	if !w.loading {
		s.cfg.Log.Warn("worker ended before it was needed", "status", int(e.status))
		w.close()
		if s.idle++; s.idle > maxIdleCrashes {
			s.fail(end)
		} else if s.code != nil {
			s.start()
		}
		return
	}
	if !w.serving {
		if w.doomed == nil {
			end = end.whileLoading()
		}
		w.close()
		s.fail(end)
		return
	}
	s.cfg.Log.Info("worker ended", "status", int(e.status), "kind", end.kind, "signal", end.signal)
	if s.idle++; victim != nil {
		s.idle = 0
	}
	if s.idle > maxIdleCrashes {
		w.close()
		s.fail(end)
		return
	}
	s.notify(w, victim, end)
	w.close()
	s.start()
}

// serves reports whether a request can be of that connection, as the page that its worker writes says it is.
func (s *supervisor) serves(connection uint32) bool {
	c := s.clients[connection]
	return c != nil && c.attached
}

// notify tells each client how its running request ended, or that none of its was running.
func (s *supervisor) notify(w *worker, victim *request, end ending) {
	for _, c := range s.everyone() {
		if !c.attached {
			continue
		}
		notice := control.Crashed{Begun: w.state.begun[c.id].Load(), Kind: end.kind, Signal: end.signal, Text: end.text}
		if victim != nil && victim.connection == c.id {
			notice.Seq = victim.seq
		}
		c.send(notice.Encode())
	}
}
