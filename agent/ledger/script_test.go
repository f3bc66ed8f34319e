package ledger

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
)

var update = flag.Bool("update", false, "rewrite testdata with what the ledger answers")

// TestScripts plays testdata/*.txt: each line is a command, the indented lines below it are the ledger's answer.
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

type player struct {
	t   *testing.T
	l   *Ledger
	now time.Time
}

func (p *player) play(words []string) []string {
	args := map[string]string{}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		args[key] = value
	}
	num := func(key string) int {
		n, _ := strconv.Atoi(args[key])
		return n
	}
	set := func(key string) coreset.Set {
		s, err := coreset.Parse(args[key])
		if err != nil {
			p.t.Fatal(err)
		}
		return s
	}
	hold := Hold{Job: uint32(num("job")), Cores: set("cores"), CoreCount: num("count"), Memory: uint64(num("mem")), GPUs: set("gpus"), Since: p.now}
	switch words[0] {
	case "node":
		l, err := New(Config{Cores: num("cores"), Memory: uint64(num("mem")), GPUs: num("gpus"), ReserveCores: num("reserve-cores"), ReserveMemory: uint64(num("reserve-mem"))})
		if err != nil {
			p.t.Fatal(err)
		}
		p.l, p.now = l, time.Unix(1000, 0)
	case "wait":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
	case "start":
		e, err := p.l.Reserve(args["id"], 1, Need{num("cores"), uint64(num("mem")), num("gpus")}, p.now)
		if err != nil {
			return []string{err.Error()}
		}
		return []string{fmt.Sprintf("cores %s gpus %s", e.Cores, e.GPUs)}
	case "claim":
		hold.Origin = Gate
		p.l.Claim(hold)
		return p.overlap(hold.Job)
	case "condemn":
		return []string{fmt.Sprint(p.l.Condemn(words[1]))}
	case "gone":
		p.l.Remove(words[1])
	case "clear":
		return []string{fmt.Sprint(p.l.Clear(hold.Job))}
	case "warn":
		p.l.Warn(hold.Job, hold.GPUs, p.now, p.now.Add(5*time.Second))
		return p.overlap(hold.Job)
	case "release":
		return []string{fmt.Sprint(p.l.Release(hold.Job, p.now))}
	case "seen":
		local := map[uint32]bool{}
		for _, word := range words[1:] {
			job, _ := strconv.Atoi(word)
			local[uint32(job)] = true
		}
		return []string{fmt.Sprint(p.l.Seen(local, p.now))}
	case "settle":
		return []string{fmt.Sprint(p.l.Settle(p.now))}
	case "report":
		return p.report(words[1:])
	case "withhold":
		p.l.Withhold(hold.GPUs)
	case "total":
		return []string{fmt.Sprint(p.l.Node())}
	case "free":
		ok, why := p.l.Admitting(p.now)
		return []string{fmt.Sprintf("free %v slurm %v leased %v admitting %v %s", p.l.Free(p.now), p.l.Slurm(), p.l.Leased(), ok, why)}
	default:
		p.t.Fatalf("unknown command %q", words[0])
	}
	return nil
}

func (p *player) overlap(job uint32) []string {
	var ids []string
	for _, e := range p.l.Overlap(job) {
		ids = append(ids, e.ID)
	}
	return []string{"evict " + strings.Join(ids, " ")}
}

// report words: "12:0-3:100" is job 12 with cores 0-3 and 100 bytes, "12:#4:100" knows only the count, "local:12" runs here.
func (p *player) report(words []string) []string {
	r := Report{AsOf: p.now, Local: map[uint32]bool{}}
	for _, word := range words {
		parts := strings.Split(word, ":")
		if parts[0] == "local" {
			job, _ := strconv.Atoi(parts[1])
			r.Local[uint32(job)] = true
			continue
		}
		job, _ := strconv.Atoi(parts[0])
		mem, _ := strconv.Atoi(parts[2])
		h := Hold{Job: uint32(job), Memory: uint64(mem)}
		if count, ok := strings.CutPrefix(parts[1], "#"); ok {
			h.CoreCount, _ = strconv.Atoi(count)
		} else {
			h.Cores, _ = coreset.Parse(parts[1])
		}
		r.Jobs = append(r.Jobs, h)
	}
	var lines []string
	for _, c := range p.l.Reconcile(r, p.now) {
		lines = append(lines, fmt.Sprintf("job %d claimed %v", c.Job, c.Claimed))
	}
	return lines
}
