package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// acceptPause is the pause after an accept that failed, for want of descriptors most likely.
const acceptPause = 10 * time.Millisecond

// Serve hands each connection to each, one after the other, until ctx ends, and keeps the socket's file there meanwhile. An error means that
// the listener is of no use any more.
func (k *Listener) Serve(ctx context.Context, log *slog.Logger, each func(*net.UnixConn)) error {
	stop := context.AfterFunc(ctx, func() { _ = k.Close() })
	defer stop()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		k.Watch(ctx, func(err error) { log.Warn("socket was gone and is made anew", "path", k.path, "error", err) })
	})
	for {
		conn, err := k.AcceptUnix()
		switch {
		case err == nil:
			each(conn)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", k.path, err)
		}
		log.Warn("cannot accept a connection", "path", k.path, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(acceptPause):
		}
	}
}
