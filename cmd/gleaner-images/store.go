package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// known is how long what a name stands for is taken for granted: a tag that is moved in Podman is seen after that.
const known = time.Minute

// image is one root, mounted for as long as anybody holds it and a while longer.
type image struct {
	Key     string          `json:"key"` // Podman's id of the image
	Digest  string          `json:"digest"`
	Fabric  bool            `json:"fabric"`
	Pin     string          `json:"pin"`              // id of the container that keeps the image in Podman
	Private []uint32        `json:"private,omitzero"` // who has shown the archive it comes from; nil when it has a name
	Holders map[string]bool `json:"holders"`
	used    time.Time
}

// store knows what is mounted. Its mutex is held for no longer than a look; what takes time is done once for all who wait for it.
type store struct {
	c      Config
	needs  needs
	podman *podman
	log    *slog.Logger

	mu     sync.Mutex
	images map[string]*image // by key
	names  map[string]named  // by what was asked for
	making map[string]*making
}

// named is what a name or a file stood for when it was looked up.
type named struct {
	key string
	at  time.Time // zero: for ever, as the contents of a file
}

// making is a lookup under way.
type making struct {
	done chan struct{}
	key  string
	err  error
}

func newStore(c Config, n needs, log *slog.Logger) (*store, error) {
	s := &store{c: c, needs: n, podman: &podman{socket: c.Podman}, log: log, images: map[string]*image{}, names: map[string]named{}, making: map[string]*making{}}
	if err := os.MkdirAll(s.dir(), 0o711); err != nil {
		return nil, fmt.Errorf("make the images' folder: %w", err)
	}
	if err := os.Chmod(s.dir(), 0o711); err != nil { // sandboxes are set up by an unprivileged id, which passes
		return nil, err
	}
	return s, s.restore()
}

func (s *store) dir() string            { return filepath.Join(s.c.RunDir, "images") }
func (s *store) root(key string) string { return filepath.Join(s.dir(), key) }
func (s *store) memo() string           { return filepath.Join(s.dir(), "state.json") }

// restore takes over what a predecessor has mounted; holders are dropped when the agent says who is left.
func (s *store) restore() error {
	text, err := os.ReadFile(s.memo())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.images)
	}
	if err != nil {
		return fmt.Errorf("read what was mounted before: %w; with no executor running remove %s", err, s.memo())
	}
	for key, i := range s.images {
		i.used = time.Now()
		if !mounted(s.root(key)) {
			delete(s.images, key)
		}
	}
	return nil
}

// save writes the state; s.mu is held.
func (s *store) save() {
	text, err := json.Marshal(s.images)
	if err == nil {
		err = errors.Join(os.WriteFile(s.memo()+".new", text, 0o600), os.Rename(s.memo()+".new", s.memo()))
	}
	if err != nil {
		s.log.Error("state not written", "error", err)
	}
}

func (s *store) answer(ctx context.Context, q request) reply {
	switch q.Verb {
	case "take":
		r, err := s.take(ctx, q)
		if err != nil {
			return reply{Error: fmt.Sprintf("image %s: %v", q.Image, err)}
		}
		return r
	case "drop":
		s.drop(func(holder string) bool { return holder == q.Holder })
		return reply{}
	case "keep":
		s.drop(func(holder string) bool { return !slices.Contains(q.Holders, holder) })
		return reply{}
	}
	return reply{Error: fmt.Sprintf("unknown verb %q", q.Verb)}
}

// take finds or makes the image's root and notes its holder.
func (s *store) take(ctx context.Context, q request) (reply, error) {
	if q.Holder == "" || q.Image == "" || len(q.Image) > 4096 {
		return reply{}, errors.New("a take names an image and its holder")
	}
	var a *archive
	name := q.Image
	if strings.HasPrefix(q.Image, "/") {
		var err error
		if a, err = openAs(q.Image, q.UID, q.GID, q.Groups); err != nil {
			return reply{}, err
		}
		defer a.close()
		name = a.identity
	}
	for {
		key, err := s.find(ctx, name, a)
		if err != nil {
			return reply{}, err
		}
		s.mu.Lock()
		i := s.images[key]
		if i == nil { // dropped meanwhile
			s.mu.Unlock()
			continue
		}
		defer s.mu.Unlock()
		if a != nil && i.Private != nil && !slices.Contains(i.Private, q.UID) {
			i.Private = append(i.Private, q.UID)
		}
		if a == nil && i.Private != nil && !slices.Contains(i.Private, q.UID) {
			return reply{}, fmt.Errorf("no such image: it is neither in the node's Podman nor can it be pulled")
		}
		i.Holders[q.Holder], i.used = true, time.Now()
		s.save()
		return reply{Key: i.Key, Digest: i.Digest, Fabric: i.Fabric}, nil
	}
}

// find returns the key of a mounted image. Whoever asks for the same at the same time waits for one answer.
func (s *store) find(ctx context.Context, name string, a *archive) (string, error) {
	s.mu.Lock()
	if n, ok := s.names[name]; ok && s.images[n.key] != nil && (n.at.IsZero() || time.Since(n.at) < known) {
		s.mu.Unlock()
		return n.key, nil
	}
	m := s.making[name]
	if m == nil {
		m = &making{done: make(chan struct{})}
		s.making[name] = m
		s.mu.Unlock()
		m.key, m.err = s.make(ctx, name, a)
		s.mu.Lock()
		delete(s.making, name)
		if m.err == nil {
			at := time.Now()
			if a != nil {
				at = time.Time{}
			}
			s.names[name] = named{m.key, at}
		}
		s.mu.Unlock()
		close(m.done)
		return m.key, m.err
	}
	s.mu.Unlock()
	select {
	case <-m.done:
		return m.key, m.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// make brings an image into Podman if it is not there, pins it, mounts it and looks whether functions can run in it.
func (s *store) make(ctx context.Context, name string, a *archive) (string, error) {
	var key string
	var err error
	if a != nil {
		key, err = s.podman.load(ctx, a, s.c)
	} else {
		key, err = s.podman.resolve(ctx, name)
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	if i := s.images[key]; i != nil {
		if a == nil && i.Private != nil && s.podman.hasName(ctx, key) {
			i.Private = nil // it has got a name since
		}
		i.used = time.Now()
		s.mu.Unlock()
		return key, nil
	}
	s.mu.Unlock()
	i, err := s.prepare(ctx, key)
	if err != nil {
		return "", err
	}
	if a != nil && !s.podman.hasName(ctx, key) {
		i.Private = []uint32{a.uid}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[key] = i
	s.save()
	s.log.Info("image is ready", "image", name, "digest", i.Digest, "fabric", i.Fabric)
	return key, nil
}

func (s *store) prepare(ctx context.Context, key string) (*image, error) {
	layers, digest, err := s.podman.layers(ctx, key)
	if err != nil {
		return nil, err
	}
	i := &image{Key: key, Digest: digest, Holders: map[string]bool{}, used: time.Now()}
	if i.Pin, err = s.podman.pin(ctx, key); err != nil {
		return nil, err
	}
	err = mountRoot(s.root(key), append(layers, filepath.Join(s.c.RunDir, "launch", "root")))
	if err == nil {
		i.Fabric, err = s.needs.check(s.root(key))
	}
	if err != nil {
		s.remove(i)
		return nil, err
	}
	return i, nil
}

func (s *store) remove(i *image) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(unmountRoot(s.root(i.Key)), s.podman.unpin(ctx, i.Pin))
	if err == nil && i.Private != nil {
		err = s.podman.forget(ctx, i.Key)
	}
	if err != nil {
		s.log.Warn("image not put away", "digest", i.Digest, "error", err)
	}
}

// drop ends what some holders keep.
func (s *store) drop(whose func(holder string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for _, i := range s.images {
		for holder := range i.Holders {
			if whose(holder) {
				delete(i.Holders, holder)
				i.used, changed = time.Now(), true
			}
		}
	}
	if changed {
		s.save()
	}
}

// tidy puts away what nobody has used for a while.
func (s *store) tidy(ctx context.Context) {
	tick := time.NewTicker(max(s.c.Idle/10, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var idle []*image
		s.mu.Lock()
		for key, i := range s.images {
			if len(i.Holders) == 0 && time.Since(i.used) > s.c.Idle {
				delete(s.images, key)
				idle = append(idle, i)
			}
		}
		if len(idle) > 0 {
			s.save()
		}
		s.mu.Unlock()
		for _, i := range idle {
			s.remove(i)
		}
	}
}
