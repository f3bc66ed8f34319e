package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/containers/podman/v4/pkg/bindings"
	"github.com/containers/podman/v4/pkg/bindings/containers"
	"github.com/containers/podman/v4/pkg/bindings/images"
	"github.com/containers/podman/v4/pkg/specgen"
)

// podman asks the node's Podman through its socket.
type podman struct {
	socket string

	mu   sync.Mutex
	conn context.Context //nolint:containedctx // the bindings keep their connection in one
}

// with runs f on the connection, until ctx ends.
func (p *podman) with(ctx context.Context, f func(context.Context) error) error {
	p.mu.Lock()
	conn, err := p.conn, error(nil)
	if conn == nil {
		if conn, err = bindings.NewConnection(context.Background(), p.socket); err == nil {
			p.conn = conn
		}
	}
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("ask Podman at %s: %w; does podman.socket run?", p.socket, err)
	}
	call, cancel := context.WithCancel(conn)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	return f(call)
}

var reference = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,510}$`)

// resolve finds the image of a name, or pulls it. The reference is only ever one of a registry: other transports would have Podman read
// files as root.
func (p *podman) resolve(ctx context.Context, name string) (string, error) {
	if !reference.MatchString(name) || strings.Contains(name, "://") {
		return "", errors.New("no name of an image and no path: write a name such as registry.site/tools/solver:2, or an absolute path of an archive")
	}
	var key string
	err := p.with(ctx, func(conn context.Context) error {
		if found, err := images.GetImage(conn, name, nil); err == nil {
			key = hexOf(found.ID)
			return nil
		}
		ids, err := images.Pull(conn, "docker://"+name, new(images.PullOptions).WithPolicy("missing").WithQuiet(true))
		if err != nil {
			return fmt.Errorf("no such image: it is not in the node's Podman, and pulling it fails: %w", err)
		}
		if len(ids) == 0 {
			return errors.New("no such image: the registry has nothing for this node")
		}
		key = hexOf(ids[len(ids)-1])
		return nil
	})
	return key, err
}

// load gives an archive to Podman, without its names.
func (p *podman) load(ctx context.Context, a *archive, c Config) (string, error) {
	spool, err := os.CreateTemp(c.Spool, "gleaner-image-")
	if err != nil {
		return "", fmt.Errorf("make room for the archive: %w", err)
	}
	defer func() { _ = spool.Close() }()
	if err := os.Remove(spool.Name()); err != nil {
		return "", err
	}
	what, err := copyWithoutNames(spool, a.file, c.MaxBytes)
	if err != nil {
		return "", err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	var key string
	err = p.with(ctx, func(conn context.Context) error {
		if what == tarball {
			made, err := images.Import(conn, spool, nil)
			if err != nil {
				return fmt.Errorf("import the root file system: %w", err)
			}
			key = hexOf(made.Id)
			return nil
		}
		made, err := images.Load(conn, spool)
		if err != nil {
			return fmt.Errorf("load the archive: %w", err)
		}
		if len(made.Names) == 0 {
			return errors.New("load the archive: there is no image in it")
		}
		found, err := images.GetImage(conn, made.Names[0], nil)
		if err == nil {
			key = hexOf(found.ID)
		}
		return err
	})
	return key, err
}

// layers are the folders of an image, the uppermost first, and the digest that names it in records.
func (p *podman) layers(ctx context.Context, key string) (layers []string, digest string, err error) {
	err = p.with(ctx, func(conn context.Context) error {
		found, err := images.GetImage(conn, key, nil)
		if err != nil {
			return fmt.Errorf("look at the image: %w", err)
		}
		digest = string(found.Digest)
		if digest == "" {
			digest = "sha256:" + key
		}
		if found.GraphDriver == nil || found.GraphDriver.Name != "overlay" {
			return errors.New("the node's Podman does not store images by overlay: set driver = \"overlay\" in storage.conf")
		}
		layers = append(layers, found.GraphDriver.Data["UpperDir"])
		if lower := found.GraphDriver.Data["LowerDir"]; lower != "" {
			layers = append(layers, strings.Split(lower, ":")...)
		}
		return nil
	})
	return layers, digest, err
}

// hasName says whether anybody can ask for the image by name.
func (p *podman) hasName(ctx context.Context, key string) bool {
	named := false
	_ = p.with(ctx, func(conn context.Context) error {
		found, err := images.GetImage(conn, key, nil)
		named = err == nil && len(found.RepoTags) > 0
		return err
	})
	return named
}

// pin makes a container that never runs: as long as it exists Podman removes the image for nobody.
func (p *podman) pin(ctx context.Context, key string) (string, error) {
	name := "gleaner-pin-" + key[:16]
	err := p.with(ctx, func(conn context.Context) error {
		if there, err := containers.Exists(conn, name, nil); err != nil || there {
			return err
		}
		s := specgen.NewSpecGenerator(key, false)
		s.Name, s.Command, s.Labels = name, []string{"/never-run"}, map[string]string{"gleaner": "pin"}
		s.NetNS = specgen.Namespace{NSMode: specgen.Host}
		_, err := containers.CreateWithSpec(conn, s, nil)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hold on to the image: %w", err)
	}
	return name, nil
}

func (p *podman) unpin(ctx context.Context, name string) error {
	return p.with(ctx, func(conn context.Context) error {
		_, err := containers.Remove(conn, name, new(containers.RemoveOptions).WithForce(true).WithIgnore(true))
		return err
	})
}

// forget removes an image that has no name.
func (p *podman) forget(ctx context.Context, key string) error {
	return p.with(ctx, func(conn context.Context) error {
		_, errs := images.Remove(conn, []string{key}, nil)
		return errors.Join(errs...)
	})
}

func hexOf(id string) string { return strings.TrimPrefix(strings.TrimSpace(id), "sha256:") }
