package fabric

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/gleaner-hpc/gleaner/fabric/channel"
)

// reach opens the protected connection to an executor that has no Unix socket here, and puts it in the place of the address.
// release gives back what dial has taken a copy of.
func reach(ctx context.Context, e Endpoint, o Options, timeout time.Duration) (_ Endpoint, release func(), err error) {
	if o.Carrier == "ring" || o.Carrier == "" && isSocket(e.Local) {
		return e, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secure, err := channel.Open(ctx, e.Address)
	if err != nil {
		return e, nil, &GoneError{Reason: err.Error()}
	}
	host, _, _ := net.SplitHostPort(secure.LocalAddr().String())
	near, err := channel.Carry(secure)
	if err != nil {
		return e, nil, fmt.Errorf("dial executor: %w", err)
	}
	e.Address = fmt.Sprintf("fd:%d|%s", near.Fd(), host)
	return e, func() { runtime.KeepAlive(near); _ = near.Close() }, nil
}

func isSocket(path string) bool {
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}
