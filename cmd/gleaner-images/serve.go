package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFrame bounds a frame's JSON in bytes, as in api/jsonframe.
const maxFrame = 1 << 20

// request and reply repeat api/images.
type request struct {
	ID      uint64   `json:"id"`
	Verb    string   `json:"verb"`
	Image   string   `json:"image"`
	Holder  string   `json:"holder"`
	Holders []string `json:"holders"`
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Groups  []uint32 `json:"groups"`
}

type reply struct {
	ID     uint64 `json:"id"`
	Error  string `json:"error,omitempty"`
	Key    string `json:"key,omitempty"`
	Digest string `json:"digest,omitempty"`
	Fabric bool   `json:"fabric,omitempty"`
}

// serve answers until ctx ends.
func serve(ctx context.Context, c Config, s *store, log *slog.Logger) error {
	_ = os.Remove(c.Socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.Socket, err)
	}
	if err := errors.Join(os.Chmod(c.Socket, 0o600), os.Chown(c.Socket, c.AgentUID, -1)); err != nil {
		return fmt.Errorf("give %s to uid %d: %w", c.Socket, c.AgentUID, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	log.Info("ready", "socket", c.Socket, "podman", c.Podman)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if uid, err := peerUID(conn); err != nil || uid != 0 && uid != uint32(c.AgentUID) {
			log.Warn("refused a connection", "uid", uid, "error", err)
			_ = conn.Close()
			continue
		}
		go converse(ctx, conn, s)
	}
}

func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var opt error
	if err := raw.Control(func(fd uintptr) { cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if opt != nil {
		return 0, opt
	}
	return cred.Uid, nil
}

// converse answers one connection; what it asked for ends with it.
func converse(ctx context.Context, conn net.Conn, s *store) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { _ = conn.Close() }()
	var mu sync.Mutex
	for {
		q, err := readFrame(conn)
		if err != nil {
			return
		}
		go func() {
			r := s.answer(ctx, q)
			r.ID = q.ID
			mu.Lock()
			defer mu.Unlock()
			if writeFrame(conn, r) != nil {
				_ = conn.Close()
			}
		}()
	}
}

func readFrame(r io.Reader) (request, error) {
	var q request
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return q, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return q, fmt.Errorf("frame of %d bytes, at most %d", size, maxFrame)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return q, err
	}
	return q, json.Unmarshal(body, &q)
}

func writeFrame(w io.Writer, r reply) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}
