// Package images is the agent's side of the images helper's socket (package api/images): it asks for roots and gives them back. It
// decides nothing and keeps nothing; each call has a connection of its own, and what was asked for ends with it.
package images

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gleaner-hpc/gleaner/api/images"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

// dialTimeout bounds the connection to a socket of this node.
const dialTimeout = time.Second

// Client asks the helper that listens at Path.
type Client struct{ Path string }

// Take makes an image's root available to its holder. It may last as long as a pull.
func (c Client) Take(ctx context.Context, q images.Request) (images.Reply, error) {
	q.Verb = images.Take
	return c.call(ctx, q)
}

// Drop ends what a holder keeps.
func (c Client) Drop(ctx context.Context, holder string) error {
	_, err := c.call(ctx, images.Request{Verb: images.Drop, Holder: holder})
	return err
}

// Keep drops what anybody else holds.
func (c Client) Keep(ctx context.Context, holders []string) error {
	_, err := c.call(ctx, images.Request{Verb: images.Keep, Holders: holders})
	return err
}

func (c Client) call(ctx context.Context, q images.Request) (images.Reply, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", c.Path)
	if err != nil {
		return images.Reply{}, fmt.Errorf("image %s: this node offers no images: its helper does not listen at %s: %w", q.Image, c.Path, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var r images.Reply
	err = jsonframe.Write(conn, q)
	if err == nil {
		err = jsonframe.Read(conn, &r)
	}
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("image %s: %w", q.Image, ctx.Err())
	case err != nil:
		return r, fmt.Errorf("image %s: ask the images helper at %s: %w", q.Image, c.Path, err)
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}
