package evict

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
)

var update = flag.Bool("update", false, "rewrite testdata with what happens")

// TestScripts plays testdata/*.txt: each line is something that happens on a node, the indented lines below it are what follows.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t}
			var got strings.Builder
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "  ") {
					continue
				}
				got.WriteString(line)
				if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
					continue
				}
				for _, answer := range p.play(strings.Fields(line)) {
					fmt.Fprintf(&got, "  %s\n", answer)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(text) {
				t.Errorf("%s: got\n%s", file, got.String())
			}
		})
	}
}

// player is a node whose clock a script turns.
type player struct {
	t         *testing.T
	l         *ledger.Ledger
	book      Book
	announced Announced
	policy    Policy
	now       time.Time
	ticket    uint64
	args      map[string]string
}

func (p *player) num(key string) int {
	n, _ := strconv.Atoi(p.args[key])
	return n
}

func (p *player) time(key string) time.Duration {
	if p.args[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(p.args[key])
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *player) set(key string) coreset.Set {
	s, err := coreset.Parse(p.args[key])
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *player) play(words []string) []string {
	p.args = map[string]string{}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		p.args[key] = value
	}
	job := uint32(p.num("job"))
	switch words[0] {
	case "node":
		l, err := ledger.New(ledger.Config{Cores: p.num("cores"), Memory: uint64(p.num("mem")) << 20, GPUs: p.num("gpus")})
		if err != nil {
			p.t.Fatal(err)
		}
		*p = player{t: p.t, l: l, now: time.Unix(1000, 0), policy: Policy{Deadline: p.time("deadline"), MaxGrace: p.time("grace")}}
	case "start":
		e, err := p.l.Reserve(words[1], 1, ledger.Need{Cores: p.num("cores"), Memory: uint64(p.num("mem")) << 20, GPUs: p.num("gpus")}, p.now)
		if err != nil {
			return []string{err.Error()}
		}
		return []string{strings.TrimSpace(fmt.Sprintf("cores %s gpus %s", e.Cores, e.GPUs))}
	case "park":
		if _, err := p.l.Park(words[1], uint64(p.num("mem"))<<20, p.now); err != nil {
			return []string{err.Error()}
		}
	case "claim":
		return p.claim(job)
	case "gone":
		p.l.Remove(words[1])
		return verdicts(p.book.Settle(p.l.Clear))
	case "stuck":
		return verdicts(p.book.Fail(words[1:2], p.l.Blocking))
	case "release":
		p.l.Release(job, p.now)
		p.announced.Drop(job)
		return verdicts(p.book.Settle(p.l.Clear))
	case "warn":
		p.announced.Warn(job, p.now, p.time("limit"))
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		p.announced.Expire(p.now)
		return verdicts(p.book.Expire(p.now))
	case "frozen":
		return []string{fmt.Sprint(p.announced.Freezes(p.now))}
	default:
		p.t.Fatalf("unknown command %q", words[0])
	}
	return nil
}

func (p *player) claim(job uint32) []string {
	p.l.Claim(ledger.Hold{Job: job, Cores: p.set("cores"), Memory: uint64(p.num("mem")) << 20, GPUs: p.set("gpus"), Since: p.now, Origin: ledger.Gate})
	h, _ := p.l.Job(job)
	plan := New(h, p.l.Overlap(job), p.now, p.time("wanted"), p.policy)
	for _, id := range plan.Kill {
		p.l.Condemn(id)
	}
	p.ticket++
	p.book.Open(Ticket{ID: p.ticket, Job: job, Received: p.now, Deadline: plan.Deadline, Evicted: plan.Evicted, Bytes: plan.Bytes})
	var lines []string
	if len(plan.Kill) > 0 {
		lines = append(lines,
			fmt.Sprintf("kill %s within %v after %v of grace", strings.Join(plan.Kill, " "), plan.Deadline.Sub(p.now), plan.Grace),
			fmt.Sprintf("evicted %s, %d MiB: %s", strings.Join(plan.Evicted, " "), plan.Bytes>>20, plan.Reason))
	}
	closed := p.book.Settle(p.l.Clear)
	for _, v := range closed {
		p.announced.Drop(v.Job)
	}
	return append(lines, verdicts(closed)...)
}

func verdicts(all []Verdict) []string {
	var lines []string
	for _, v := range all {
		what := "done"
		if !v.Complete {
			what = "failed"
		}
		lines = append(lines, fmt.Sprintf("%s job %d, %d evicted", what, v.Job, len(v.Evicted)))
	}
	return lines
}
