package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
)

// Types of frames.
const (
	typeLease   = 1
	typeReady   = 2
	typeGone    = 3
	typeEnded   = 4
	typeHello   = 16
	typeRefresh = 17
	typeCounts  = 18
)

const (
	version   = 1
	magic     = 0x48534c47
	headBytes = 8
	maxBody   = 4096
	maxText   = 500
	maxName   = 255
	maxToken  = 512
)

// ErrMalformed is returned for a frame that breaks the protocol.
var ErrMalformed = errors.New("malformed frame")

// Terms are what a lease offers, as LEASE tells them.
type Terms struct {
	Lease     uint64
	Buffer    uint64        // bytes of the largest arguments or result
	Timeout   time.Duration // of one run of the function; 0: none
	Executors uint32        // wanted at the same time
}

// request is a frame from libgleaner.
type request struct {
	kind                uint16
	executor            uint64 // of REFRESH
	ok, failed, retried uint64 // of COUNTS
}

var le = binary.LittleEndian

// readRequest takes one frame from r.
func readRequest(r io.Reader) (request, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request{}, err
	}
	size, kind := le.Uint32(head[:]), le.Uint16(head[4:])
	if want := map[uint16]uint32{typeHello: 8, typeRefresh: 8, typeCounts: 24}[kind]; want == 0 || size != want || le.Uint16(head[6:]) != 0 {
		return request{}, fmt.Errorf("%w: type %d of %d bytes", ErrMalformed, kind, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return request{}, fmt.Errorf("frame cut short: %w", err)
	}
	q := request{kind: kind}
	switch kind {
	case typeHello:
		if le.Uint32(body) != magic || le.Uint32(body[4:]) != version {
			return q, fmt.Errorf("%w: client speaks another protocol or version", ErrMalformed)
		}
	case typeRefresh:
		q.executor = le.Uint64(body)
	case typeCounts:
		q.ok, q.failed, q.retried = le.Uint64(body), le.Uint64(body[8:]), le.Uint64(body[16:])
	}
	return q, nil
}

func begin(kind uint16) []byte {
	w := make([]byte, headBytes, 256)
	le.PutUint16(w[4:], kind)
	return w
}

func finish(w []byte) []byte {
	le.PutUint32(w, uint32(len(w)-headBytes))
	return w
}

// text appends a string, without zero bytes and cut to limit.
func text(w []byte, s string, limit int) []byte {
	s = strings.ReplaceAll(s, "\x00", "")
	s = s[:min(len(s), limit)]
	return append(le.AppendUint16(w, uint16(len(s))), s...)
}

func leaseFrame(t Terms, size int, digest [32]byte, symbol string) []byte {
	w := le.AppendUint32(begin(typeLease), magic)
	w = le.AppendUint32(w, version)
	w = le.AppendUint64(w, t.Lease)
	w = le.AppendUint64(w, t.Buffer)
	w = le.AppendUint64(w, uint64(t.Timeout))
	w = le.AppendUint32(w, t.Executors)
	w = le.AppendUint64(w, uint64(size))
	w = append(w, digest[:]...)
	return finish(text(w, symbol, maxName))
}

// readyFrame refuses what libgleaner would have to refuse: an address that is cut leads nowhere.
func readyFrame(number uint64, e *api.Executor, way string) ([]byte, error) {
	if len(way) > maxName || len(e.GetLocal()) > maxName || len(e.GetToken()) > maxToken {
		return nil, fmt.Errorf("announce executor %s: address, socket or token too long", e.GetId())
	}
	w := le.AppendUint64(begin(typeReady), number)
	w = text(w, e.GetId(), maxName)
	w = text(w, e.GetNode(), maxName)
	w = text(w, way, maxName)
	w = text(w, e.GetLocal(), maxName)
	w = append(le.AppendUint16(w, uint16(len(e.GetToken()))), e.GetToken()...)
	return finish(w), nil
}

func goneFrame(number uint64, failed bool, why string) []byte {
	w := le.AppendUint64(begin(typeGone), number)
	blame := uint32(0)
	if failed {
		blame = 1
	}
	return finish(text(le.AppendUint32(w, blame), why, maxText))
}

func endedFrame(reason api.EndReason, why string) []byte {
	return finish(text(le.AppendUint32(begin(typeEnded), uint32(reason)), why, maxText))
}
