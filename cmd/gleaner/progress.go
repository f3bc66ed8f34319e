package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/gleaner-hpc/gleaner/client"
)

// progress tells on standard error how a lease fares: a bar on a terminal, otherwise a line now and then.
type progress struct {
	lease *client.Lease
	out   io.Writer
	bars  *mpb.Progress // nil without a terminal
	bar   *mpb.Bar
	total int

	quit chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	ended  int
	failed int
}

const (
	waitNotice = 5 * time.Second // without an executor, before the user is told why
	lineEvery  = time.Minute
)

// follow starts to tell. A bar is shown for more than one task.
func (a *app) follow(lease *client.Lease, total int) *progress {
	p := &progress{lease: lease, out: a.stderr, total: total, quit: make(chan struct{})}
	if f, ok := a.stderr.(*os.File); ok && total > 1 && term.IsTerminal(int(f.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithAutoRefresh())
		p.out = p.bars
		p.bar = p.bars.AddBar(int64(total), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.CountersNoUnit("%d/%d tasks", decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.note() }), decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace)))
	}
	p.done.Go(p.run)
	return p
}

// note is what stands behind the bar.
func (p *progress) note() string {
	counts := p.lease.Counts()
	text := " " + plural(int(counts.Executors), "executor")
	if counts.Evicted > 0 {
		text += fmt.Sprintf(", %d evicted", counts.Evicted)
	}
	return text
}

// ends books the end of a task.
func (p *progress) ends(err error) {
	p.mu.Lock()
	p.ended++
	if err != nil {
		p.failed++
	}
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.Increment()
	}
}

func (p *progress) run() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	began, told, toldAt := time.Now(), "", time.Time{}
	waitingSince, line := began, began
	for {
		select {
		case <-p.quit:
			return
		case now := <-ticker.C:
			counts := p.lease.Counts()
			if counts.Executors > 0 || counts.Waiting == 0 {
				waitingSince = now
			}
			if why := p.whyWaiting(counts); now.Sub(waitingSince) >= waitNotice && why != told && now.Sub(toldAt) >= lineEvery {
				told, toldAt = why, now
				fmt.Fprintf(p.out, "gleaner: lease %d waits for an executor: %s\n", p.lease.ID(), why)
			}
			if p.bar == nil && p.total > 1 && now.Sub(line) >= lineEvery {
				line = now
				p.mu.Lock()
				fmt.Fprintf(p.out, "gleaner: %d of %d tasks done, %d failed,%s\n", p.ended, p.total, p.failed, p.note())
				p.mu.Unlock()
			}
		}
	}
}

func (p *progress) whyWaiting(counts client.Counts) string {
	if counts.Trouble != nil {
		return counts.Trouble.Error()
	}
	if detail := p.lease.Status().GetDetail(); detail != "" {
		return detail
	}
	return "no node has room for one now"
}

// stop ends the telling and leaves the terminal tidy.
func (p *progress) stop() {
	close(p.quit)
	p.done.Wait()
	if p.bars != nil {
		p.bar.Abort(true) // the summary says the same
		p.bars.Wait()
	}
}

// warn tells of something that does not change the outcome.
func (a *app) warn(err error) { fmt.Fprintln(a.stderr, "gleaner: warning:", err) }
