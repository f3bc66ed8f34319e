package libgleaner

import (
	"bufio"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
)

var (
	builds   = []string{"plain", "asan", "tsan"}
	carriers = []string{"ring", "ofi"}
)

// each runs a test for every build of the library and every carrier that can be watched in it.
func each(t *testing.T, f func(t *testing.T, build, carrier string)) {
	for _, build := range builds {
		for _, carrier := range carriers {
			if build == "tsan" && carrier == "ofi" {
				continue // libfabric is not built for the thread sanitizer
			}
			t.Run(build+"/"+carrier, func(t *testing.T) { f(t, build, carrier) })
		}
	}
}

func TestBasics(t *testing.T) {
	each(t, func(t *testing.T, build, carrier string) {
		w := newWorld(t, "work", 0)
		w.start()
		w.start()
		w.announce(time.Hour)
		passes(t, w.command(build, carrier, "basics"), time.Minute)
		w.holder.reported(t, func(ok, failed, _ uint64) bool { return ok >= 100 && failed == 0 })
	})
}

func TestFunctionsFailByName(t *testing.T) {
	each(t, func(t *testing.T, build, carrier string) {
		w := newWorld(t, "work", 200*time.Millisecond)
		w.start()
		w.announce(time.Hour)
		passes(t, w.command(build, carrier, "failures"), time.Minute)
		w.holder.reported(t, func(ok, failed, retried uint64) bool { return ok == 1 && failed == 5 && retried == 2 })
	})
}

func TestUnknownSymbol(t *testing.T) {
	w := newWorld(t, "nosuch", 0)
	w.start()
	w.announce(time.Hour)
	passes(t, w.command("asan", "ring", "broken"), 20*time.Second)
}

// Executors come and go, by eviction and by sudden death, under many threads; nothing is lost, and everything is right.
func TestStorm(t *testing.T) {
	repeated := uint64(0)
	each(t, func(t *testing.T, build, carrier string) {
		w := newWorld(t, "work", 0)
		w.start()
		w.start()
		w.announce(time.Hour)
		cmd := w.command(build, carrier, "storm", "2")
		done := make(chan struct{})
		go func() {
			defer close(done)
			passes(t, cmd, time.Minute)
		}()
		for lost := 0; ; lost++ {
			select {
			case <-done:
				ok, failed, retried := w.holder.counts()
				t.Logf("%d executors lost, %d calls right, %d failed, %d repeated", lost, ok, failed, retried)
				repeated += retried
				return
			case <-time.After(300 * time.Millisecond):
			}
			first := w.ids()[0]
			if lost%2 == 0 {
				w.evict(first)
			} else {
				w.kill(first)
				w.server.Gone(first, api.EndReason_EXECUTOR_FAILED, "killed")
			}
			w.start()
			w.announce(time.Hour)
		}
	})
	if repeated == 0 {
		t.Error("no call was ever repeated: the storm was none")
	}
}

func TestLeaseEnds(t *testing.T) {
	w := newWorld(t, "work", 0)
	w.start()
	w.announce(time.Hour)
	cmd := w.command("asan", "ring", "ends")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	var said []string
	for scanner.Scan() {
		said = append(said, scanner.Text())
		if scanner.Text() == "# begun" {
			w.server.End(api.EndReason_JOB_ENDED, "")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, strings.Join(said, "\n"))
	}
}

// A program that ends without gleaner_finish ends all the same, with its own exit status.
func TestExitInTheMiddle(t *testing.T) {
	each(t, func(t *testing.T, build, carrier string) {
		w := newWorld(t, "work", 0)
		w.start()
		w.announce(time.Hour)
		for range 3 {
			passes(t, w.command(build, carrier, "leave"), 20*time.Second)
		}
	})
}

// With the executors stopped every function returns within its time.
func TestExecutorsAreStopped(t *testing.T) {
	each(t, func(t *testing.T, build, carrier string) {
		w := newWorld(t, "work", 0)
		w.start()
		w.announce(time.Hour)
		cmd := w.command(build, carrier, "stopped")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGABRT) })
		defer limit.Stop()
		var said []string
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			said = append(said, scanner.Text())
			if scanner.Text() == "# stop" {
				w.stop()
				if _, err := in.Write([]byte("\n")); err != nil {
					t.Error(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil || strings.Contains(strings.Join(said, "\n"), "not ok") {
			t.Errorf("%v:\n%s", err, strings.Join(said, "\n"))
		}
	})
}

// The budget of polling comes from GLEANER_SPIN, and calls end alike under each.
func TestBudgets(t *testing.T) {
	for _, budget := range []string{"always", "never", "20us", "1.5ms"} {
		t.Run(budget, func(t *testing.T) {
			w := newWorld(t, "work", 0)
			w.start()
			w.start()
			w.announce(time.Hour)
			cmd := w.command("asan", "ring", "basics")
			cmd.Env = append(cmd.Env, "GLEANER_SPIN="+budget)
			passes(t, cmd, time.Minute)
		})
	}
	w := newWorld(t, "work", 0)
	for _, budget := range []string{"50", "-1us", "sometimes", "11s"} {
		cmd := w.command("asan", "ring", "budget")
		cmd.Env = append(cmd.Env, "GLEANER_SPIN="+budget)
		passes(t, cmd, 20*time.Second)
	}
}

// A token that has expired is replaced without anybody's notice.
func TestStaleTokenIsReplaced(t *testing.T) {
	w := newWorld(t, "work", 0)
	w.start()
	w.start()
	w.announce(-time.Minute)
	passes(t, w.command("plain", "ring", "basics"), 30*time.Second)
	w.holder.mu.Lock()
	defer w.holder.mu.Unlock()
	if w.holder.refreshes == 0 {
		t.Error("nobody asked for fresh tokens")
	}
}

func TestWithoutALease(t *testing.T) {
	w := newWorld(t, "work", 0)
	for _, socket := range []string{"", "/nonexistent/lease.sock"} {
		cmd := w.command("asan", "ring", "refused")
		cmd.Env = append(cmd.Env, "GLEANER_LEASE="+socket)
		passes(t, cmd, 10*time.Second)
	}
}
