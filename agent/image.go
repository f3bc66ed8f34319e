package agent

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/api/images"
)

// Images is what the agent asks of the node's images helper. *images.Client is one.
type Images interface {
	Take(ctx context.Context, q images.Request) (images.Reply, error)
	Drop(ctx context.Context, holder string) error
	Keep(ctx context.Context, holders []string) error
}

const (
	imageWithin = 10 * time.Minute // from Start to the image's root, which may have to be pulled
	imageAgain  = 10 * time.Second // for a helper that does not answer
)

// rooted is what an executor runs in, or what is being fetched for it: nothing is booked until the root is there, so that no job
// has to wait for a pull.
type rooted struct {
	images.Reply
	here bool
}

// fetch makes sure that a start's image is on the node, and reports whether the start has to wait for that: it comes back then.
func (l *loop) fetch(s *api.Start, now time.Time) (waits bool) {
	if s.GetImage() == "" {
		return false
	}
	if r := l.images[s.GetId()]; r != nil {
		return !r.here
	}
	if l.cfg.Images == nil {
		l.unstartable(s, api.EndReason_EXECUTOR_FAILED, "image "+s.GetImage()+": this node offers no images: images.socket in its agent.toml is empty", now)
		return true
	}
	l.images[s.GetId()] = &rooted{}
	q := images.Request{Image: s.GetImage(), Holder: s.GetId(), UID: runAs(s.GetUid()), GID: runAs(s.GetGid())}
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, imageWithin)
		defer cancel()
		var err error
		if l.cfg.Groups != nil {
			q.Groups, err = l.cfg.Groups(ctx, q.UID, time.Now())
		}
		var reply images.Reply
		if err == nil {
			reply, err = l.cfg.Images.Take(ctx, q)
		}
		return func(now time.Time) { l.fetched(s, reply, err, now) }
	})
	return true
}

func (l *loop) fetched(s *api.Start, reply images.Reply, err error, now time.Time) {
	wanted := l.images[s.GetId()] != nil
	switch {
	case err != nil:
		delete(l.images, s.GetId())
		if wanted {
			l.log.Warn("image cannot be used", "executor", s.GetId(), "lease", s.GetLeaseId(), "error", err)
			l.unstartable(s, api.EndReason_EXECUTOR_FAILED, err.Error(), now)
		}
	case !wanted: // stopped meanwhile
		l.dropImage(s)
	default:
		l.images[s.GetId()] = &rooted{reply, true}
		l.startExecutor(s, now)
	}
}

// unstartable records the end of an executor that has never run.
func (l *loop) unstartable(s *api.Start, reason api.EndReason, detail string, now time.Time) {
	l.record(&api.AgentMessage{Message: &api.AgentMessage_Ended{Ended: &api.ExecutorEnded{
		Id: s.GetId(), Reason: reason, Detail: detail, Ended: timestamppb.New(now),
	}}})
	l.changed(now)
}

// dropImage gives back what an executor ran in.
func (l *loop) dropImage(s *api.Start) {
	if s.GetImage() == "" || l.cfg.Images == nil {
		return
	}
	delete(l.images, s.GetId())
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, imageAgain)
		defer cancel()
		err := l.cfg.Images.Drop(ctx, s.GetId())
		return func(time.Time) {
			if err != nil {
				l.log.Warn("image not given back; it goes when this agent is restarted", "executor", s.GetId(), "error", err)
			}
		}
	})
}

// keepImages says after a restart which executors are left.
func (l *loop) keepImages() {
	if l.cfg.Images == nil {
		return
	}
	holders := []string{}
	for id, e := range l.executors {
		if e.start.GetImage() != "" {
			holders = append(holders, id)
		}
	}
	l.act(func(ctx context.Context) func(time.Time) {
		ctx, cancel := context.WithTimeout(ctx, imageAgain)
		defer cancel()
		_ = l.cfg.Images.Keep(ctx, holders) // a site without images has no helper
		return func(time.Time) {}
	})
}

// image is what an executor runs in; empty without an image, or when a predecessor took it.
func (l *loop) image(id string) images.Reply {
	if r := l.images[id]; r != nil {
		return r.Reply
	}
	return images.Reply{}
}

// provider is the fabric's for an executor: an image without libfabric leaves callers of this node alone.
func (l *loop) provider(s *api.Start) string {
	if r := l.images[s.GetId()]; r != nil && !r.Fabric {
		return "none"
	}
	return l.cfg.Provider
}
