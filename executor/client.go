package executor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/fabric/control"
)

const (
	helloTimeout  = 5 * time.Second
	uploadTimeout = 2 * time.Minute
	writeTimeout  = time.Second
	noticeQueue   = 64
	ringFiles     = 3
)

// client is one control connection. The supervisor's goroutine owns all fields but conn and out.
type client struct {
	conn  net.Conn
	local bool
	out   chan []byte // frames to send; closed by the supervisor

	id       uint32
	arrival  uint64 // grows with each connection
	accept   control.Accept
	spinNS   int64
	admitted bool
	attach   *attachment // waits for a worker
	attached bool        // the worker has been told
}

// attachment is a client's ATTACH with its descriptors.
type attachment struct {
	control.Attach
	files []*os.File
}

func (a *attachment) close() {
	for _, f := range a.files {
		_ = f.Close()
	}
}

// What a client's reader tells the supervisor.
type (
	helloEvent struct {
		client *client
		hello  control.Hello
		err    error
	}
	codeEvent struct {
		client *client
		file   *os.File
		digest [sha256.Size]byte
	}
	attachEvent struct {
		client     *client
		attachment *attachment
	}
	goneEvent struct{ client *client }
)

// send queues a frame; a client that takes none of 64 notices is cut off.
func (c *client) send(frame []byte) {
	select {
	case c.out <- frame:
	default:
		_ = c.conn.Close()
	}
}

// write sends what is queued until the queue is closed, and then closes the connection.
func (c *client) write() {
	for frame := range c.out {
		_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.conn.Write(frame); err != nil {
			break
		}
	}
	_ = c.conn.Close()
}

// rightsReader reads a Unix socket and keeps the descriptors that come with the bytes.
type rightsReader struct {
	conn  *net.UnixConn
	files []*os.File
}

func (r *rightsReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(ringFiles*4))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, fmt.Errorf("parse descriptors: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			r.files = append(r.files, os.NewFile(uintptr(fd), "from-client"))
		}
	}
	if len(r.files) > ringFiles {
		return n, errors.New("too many descriptors")
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// take hands the collected descriptors over.
func (r *rightsReader) take() []*os.File {
	files := r.files
	r.files = nil
	return files
}

// read follows the client's frames until it is gone. limit bounds CODE.
func (c *client) read(limit func() uint64, post func(any)) {
	defer post(goneEvent{c})
	var in io.Reader = c.conn
	rights := &rightsReader{}
	if u, ok := c.conn.(*net.UnixConn); ok {
		rights.conn, in = u, rights
	}
	defer func() {
		for _, f := range rights.take() {
			_ = f.Close()
		}
	}()
	_ = c.conn.SetReadDeadline(time.Now().Add(helloTimeout))
	for first := true; ; first = false {
		head, body, err := readFrame(in)
		if err != nil {
			return
		}
		if first != (head.Type == control.TypeHello) {
			return
		}
		switch head.Type {
		case control.TypeHello:
			hello, err := control.ParseHello(body)
			_ = c.conn.SetReadDeadline(time.Time{})
			post(helloEvent{c, hello, err})
		case control.TypeCode:
			_ = c.conn.SetReadDeadline(time.Now().Add(uploadTimeout))
			file, digest, err := receiveCode(in, uint64(head.Size), limit())
			if err != nil {
				return
			}
			_ = c.conn.SetReadDeadline(time.Time{})
			post(codeEvent{c, file, digest})
		case control.TypeAttach:
			a, err := control.ParseAttach(body)
			if err != nil {
				return
			}
			post(attachEvent{c, &attachment{Attach: a, files: rights.take()}})
		default:
			return
		}
	}
}

// readFrame reads a head and, but for CODE, the body.
func readFrame(in io.Reader) (control.Head, []byte, error) {
	var b [control.HeadBytes]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return control.Head{}, nil, err
	}
	head, err := control.ParseHead(b[:])
	if err != nil || head.Type == control.TypeCode {
		return head, nil, err
	}
	body := make([]byte, head.Size)
	_, err = io.ReadFull(in, body)
	return head, body, err
}

// receiveCode stores the library in memory and computes its digest on the way.
func receiveCode(in io.Reader, size, limit uint64) (*os.File, [sha256.Size]byte, error) {
	var digest [sha256.Size]byte
	if size > limit {
		return nil, digest, fmt.Errorf("library of %d bytes, the lease allows %d", size, limit)
	}
	file, err := memfd("gleaner-code")
	if err != nil {
		return nil, digest, err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(file, sum), in, int64(size)); err != nil {
		_ = file.Close()
		return nil, digest, fmt.Errorf("receive library: %w", err)
	}
	// Its digest holds for every worker that loads it, also after one that would write to it.
	if err := seal(file, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		_ = file.Close()
		return nil, digest, err
	}
	return file, [sha256.Size]byte(sum.Sum(nil)), nil
}

// sameDigest compares with the assignment's.
func sameDigest(a [sha256.Size]byte, b []byte) bool { return bytes.Equal(a[:], b) }
