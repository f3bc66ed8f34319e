package peer

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// healEvery is how often a listener looks whether its socket is still there: one stat a second.
const healEvery = time.Second

// Listener listens on a socket that outlives the removal of its file: without it a cleaner of old files would leave a daemon that runs and
// cannot be reached.
type Listener struct {
	path string
	mode fs.FileMode

	mu     sync.Mutex
	l      *net.UnixListener
	made   os.FileInfo
	closed bool
}

// Keep is Listen for a socket that is made anew, by Watch, when its file is gone.
func Keep(path string, mode fs.FileMode) (*Listener, error) {
	k := &Listener{path: path, mode: mode}
	return k, k.listen()
}

// listen makes the socket. The caller holds mu, or is alone.
func (k *Listener) listen() error {
	l, err := Listen(k.path, k.mode)
	if err != nil {
		return err
	}
	made, err := os.Lstat(k.path)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	k.l, k.made = l, made
	return nil
}

// AcceptUnix waits for the next connection, across the making of a new socket. After Close it fails with net.ErrClosed.
func (k *Listener) AcceptUnix() (*net.UnixConn, error) {
	for {
		k.mu.Lock()
		l := k.l
		k.mu.Unlock()
		conn, err := l.AcceptUnix()
		if err == nil || !errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		k.mu.Lock()
		same := k.l == l
		k.mu.Unlock()
		if same {
			return nil, err
		}
	}
}

// Accept is AcceptUnix for those who want any listener.
func (k *Listener) Accept() (net.Conn, error) { return k.AcceptUnix() }

// Addr is the socket's.
func (k *Listener) Addr() net.Addr { return &net.UnixAddr{Name: k.path, Net: "unix"} }

// Watch makes the socket anew whenever its file is gone, until ctx ends. told hears of each time, with the error if it did not work.
func (k *Listener) Watch(ctx context.Context, told func(error)) {
	ticker := time.NewTicker(healEvery)
	defer ticker.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		healed, err := k.heal()
		if healed || err != nil && !failed {
			told(err)
		}
		failed = err != nil
	}
}

// heal makes the socket anew if its file is gone or not ours. Callers that wait in the old socket's queue are cut off, and do what they do
// when nobody answers.
func (k *Listener) heal() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now, err := os.Lstat(k.path); k.closed || err == nil && os.SameFile(now, k.made) {
		return false, nil
	}
	old := k.l
	if err := k.listen(); err != nil {
		return false, err
	}
	return true, old.Close()
}

// Close ends it. The file stays, for whoever comes next to replace.
func (k *Listener) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	return k.l.Close()
}
