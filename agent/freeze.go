package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/launch"
)

// freezeWithin bounds a call that freezes or thaws.
const freezeWithin = time.Second

// freeze brings executors in line with what is announced: frozen between a Prolog's warning and the answer to the gate's claim, and
// running at all other times. Those that go are thawed by their kill. One call is under way at a time.
func (l *loop) freeze(now time.Time) {
	want := l.announced.Freezes(now)
	if l.freezing || !l.up || !l.synced {
		return
	}
	var ids, boxes []string
	for id, e := range l.executors {
		if e.frozen != want && e.reason == 0 && !e.starting && e.goneAt.IsZero() {
			ids, boxes = append(ids, id), append(boxes, e.box)
		}
	}
	if len(ids) == 0 {
		return
	}
	l.freezing = true
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, freezeWithin)
		defer cancel()
		var err error
		if want {
			err = l.cfg.Launcher.Freeze(ctx, boxes...)
		} else {
			err = l.cfg.Launcher.Thaw(ctx, boxes...)
		}
		return func(now time.Time) {
			l.freezing = false
			l.frozen(ids, want, err, now)
		}
	})
}

// frozen hears what a call achieved. Of one that failed the launcher's next list tells.
func (l *loop) frozen(ids []string, want bool, err error, now time.Time) {
	if err != nil && !errors.Is(err, context.Canceled) {
		l.log.Warn("executors not frozen or thawed", "frozen", want, "executors", ids, "error", err)
	}
	l.frozenAt = now
	for _, id := range ids {
		if e := l.executors[id]; e != nil {
			e.frozen = want
		}
	}
	if err != nil && !errors.Is(err, launch.ErrDown) {
		l.compare()
	}
	l.freeze(now)
}

// listedFrozen takes the launcher's word for which sandboxes are frozen; it may be a predecessor's doing.
func (l *loop) listedFrozen(frozen []string, asked, now time.Time) {
	if l.freezing || asked.Before(l.frozenAt) {
		return // the list may be older
	}
	for id, e := range l.executors {
		e.frozen = slices.Contains(frozen, id)
	}
	l.freeze(now)
}
