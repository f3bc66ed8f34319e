// Package control is the Go codec of the control protocol between clients and executors; the documentation of package fabric
// has the layout. It is pure: executors use it without cgo.
package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Types of frames.
const (
	TypeHello     = 1
	TypeAccept    = 2
	TypeRefused   = 3
	TypeCode      = 4
	TypeAttach    = 5
	TypeAttached  = 6
	TypeCrashed   = 7
	TypeRestarted = 8
	TypeRevoked   = 9
	TypeGoodbye   = 10
	TypeFailed    = 11
)

// Limits and constants of the protocol.
const (
	Version   = 2
	HeadBytes = 8
	MaxBody   = 4096
	MaxText   = 500
	magic     = 0x524e4c47

	CarrierRing = 1
	CarrierOFI  = 2
)

// ErrMalformed is returned for a frame that breaks the protocol.
var ErrMalformed = errors.New("malformed frame")

// Head is a frame's type and the size of its body.
type Head struct {
	Type uint16
	Size uint32
}

// ParseHead reads the first HeadBytes of a frame; a body above MaxBody is refused unless it is CODE.
func ParseHead(b []byte) (Head, error) {
	le := binary.LittleEndian
	if len(b) < HeadBytes {
		return Head{}, io.ErrUnexpectedEOF
	}
	h := Head{Size: le.Uint32(b), Type: le.Uint16(b[4:])}
	if le.Uint16(b[6:]) != 0 || (h.Size > MaxBody && h.Type != TypeCode) {
		return h, fmt.Errorf("%w: type %d of %d bytes", ErrMalformed, h.Type, h.Size)
	}
	return h, nil
}

// Hello is what a client wants and shows.
type Hello struct {
	Carriers    uint16 // bit set, 1<<CarrierRing | 1<<CarrierOFI
	BufferBytes uint64
	Slots       uint32
	SpinNS      int64
	Digest      [32]byte
	Token       []byte
	Symbol      string
	Provider    string
}

// ErrVersion is returned for a HELLO of another protocol or version.
var ErrVersion = errors.New("client speaks another protocol or version")

// ParseHello reads the body of a HELLO.
func ParseHello(body []byte) (Hello, error) {
	r := reader{b: body}
	if r.u32() != magic || r.u16() != Version {
		return Hello{}, ErrVersion
	}
	h := Hello{Carriers: r.u16(), BufferBytes: r.u64(), Slots: r.u32(), SpinNS: int64(r.u64())}
	copy(h.Digest[:], r.take(len(h.Digest)))
	h.Token = append([]byte(nil), r.str()...)
	h.Symbol = string(r.str())
	h.Provider = string(r.str())
	return h, r.end()
}

// Encode is the whole frame.
func (h Hello) Encode() []byte {
	w := begin(TypeHello)
	w = le.AppendUint32(w, magic)
	w = le.AppendUint16(w, Version)
	w = le.AppendUint16(w, h.Carriers)
	w = le.AppendUint64(w, h.BufferBytes)
	w = le.AppendUint32(w, h.Slots)
	w = le.AppendUint64(w, uint64(h.SpinNS))
	w = append(w, h.Digest[:]...)
	w = str(w, string(h.Token))
	w = str(w, h.Symbol)
	return finish(str(w, h.Provider))
}

// Accept is the executor's terms.
type Accept struct {
	Carrier     uint16
	NeedCode    bool
	Slots       uint32
	Connection  uint32
	BufferBytes uint64
	Cookie      uint64
	Provider    string
}

// Encode is the whole frame.
func (a Accept) Encode() []byte {
	w := le.AppendUint16(begin(TypeAccept), a.Carrier)
	var need uint16
	if a.NeedCode {
		need = 1
	}
	w = le.AppendUint16(w, need)
	w = le.AppendUint32(w, a.Slots)
	w = le.AppendUint32(w, a.Connection)
	w = le.AppendUint64(w, a.BufferBytes)
	w = le.AppendUint64(w, a.Cookie)
	return finish(str(w, a.Provider))
}

// Attach names one side's endpoint and memory; with TypeAttach the client's, with TypeAttached the worker's.
type Attach struct {
	Key     uint64
	Base    uint64
	Address []byte
}

// ParseAttach reads the body of ATTACH or ATTACHED.
func ParseAttach(body []byte) (Attach, error) {
	r := reader{b: body}
	a := Attach{Key: r.u64(), Base: r.u64()}
	a.Address = append([]byte(nil), r.str()...)
	if len(a.Address) > 256 {
		return a, ErrMalformed
	}
	return a, r.end()
}

// Encode is the whole frame, of TypeAttach or TypeAttached.
func (a Attach) Encode(kind uint16) []byte {
	w := le.AppendUint64(begin(kind), a.Key)
	w = le.AppendUint64(w, a.Base)
	return finish(str(w, string(a.Address)))
}

// Crashed says how the request that was running ended.
type Crashed struct {
	Seq    uint64 // 0: none of this connection
	Begun  uint64
	Kind   uint32
	Signal uint32
	Text   string
}

// Encode is the whole frame.
func (c Crashed) Encode() []byte {
	w := le.AppendUint64(begin(TypeCrashed), c.Seq)
	w = le.AppendUint64(w, c.Begun)
	w = le.AppendUint32(w, c.Kind)
	w = le.AppendUint32(w, c.Signal)
	return finish(str(w, cut(c.Text)))
}

// Refused encodes REFUSED, Failed FAILED: a code, a signal and a text.
func Refused(code uint32, text string) []byte { return coded(TypeRefused, code, 0, text) }

// Failed says that the library cannot be used.
func Failed(kind, signal uint32, text string) []byte { return coded(TypeFailed, kind, signal, text) }

func coded(kind uint16, code, signal uint32, text string) []byte {
	w := le.AppendUint32(begin(kind), code)
	w = le.AppendUint32(w, signal)
	return finish(str(w, cut(text)))
}

// Restarted asks the client to attach again.
func Restarted() []byte { return finish(begin(TypeRestarted)) }

// Revoked says that the lease is over; begun is the newest of the connection's requests that has begun.
func Revoked(begun uint64, reason string) []byte {
	return finish(str(le.AppendUint64(begin(TypeRevoked), begun), cut(reason)))
}

// Goodbye says that the executor ends the connection.
func Goodbye(reason string) []byte { return finish(str(begin(TypeGoodbye), cut(reason))) }

var le = binary.LittleEndian

func begin(kind uint16) []byte {
	w := make([]byte, HeadBytes, 128)
	le.PutUint16(w[4:], kind)
	return w
}

func finish(w []byte) []byte {
	le.PutUint32(w, uint32(len(w)-HeadBytes))
	return w
}

func str(w []byte, s string) []byte { return append(le.AppendUint16(w, uint16(len(s))), s...) }

func cut(s string) string {
	if len(s) > MaxText {
		return s[:MaxText]
	}
	return s
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u16() uint16 { return le.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return le.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return le.Uint64(r.take(8)) }
func (r *reader) str() []byte { return r.take(int(r.u16())) }

func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return ErrMalformed
	}
	return nil
}
