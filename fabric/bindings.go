package fabric

// #cgo CFLAGS: -std=c11 -O2 -g -Wall -Wextra -Werror
// #cgo LDFLAGS: -ldl -lpthread
// #cgo noescape gf_call
// #cgo nocallback gf_call
// #cgo noescape gf_progress
// #cgo nocallback gf_progress
// #cgo noescape gf_submit
// #cgo nocallback gf_submit
// #include <stdlib.h>
// #include "gf.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// status numbers below 100 are Kinds.
const (
	statusOK        = C.GF_OK
	statusGone      = C.GF_GONE
	statusGoneBegan = C.GF_GONE_BEGAN
)

// What woke sleep.
const (
	wokeCarrier = C.GF_WOKE_CARRIER
	wokeControl = C.GF_WOKE_CONTROL
)

const batch = 32

// completion is one request's end, as the C side fills it.
type completion struct {
	seq    uint64
	slot   uint32
	size   uint32
	status uint32
	signal uint32
}

// handle is a dialled connection on the C side.
type handle struct {
	c *C.struct_gf_conn
	// Completions of whoever harvests; written by C during a call.
	out [batch]completion
}

const _ = uint(unsafe.Sizeof(completion{}) - C.sizeof_struct_gf_completion)
const _ = uint(C.sizeof_struct_gf_completion - unsafe.Sizeof(completion{}))

// slotBuffers are a slot's request and result buffers in the arena.
type slotBuffers struct{ request, result []byte }

// dial blocks until the carrier is attached; cancel ends it.
func dial(e Endpoint, code Code, o Options, timeout time.Duration, cancel int) (*handle, error) {
	var allocated []unsafe.Pointer
	defer func() {
		for _, p := range allocated {
			C.free(p)
		}
	}()
	text := func(s string) *C.char {
		p := C.CString(s)
		allocated = append(allocated, unsafe.Pointer(p))
		return p
	}
	data := func(b []byte) *C.uint8_t {
		p := C.CBytes(b)
		allocated = append(allocated, p)
		return (*C.uint8_t)(p)
	}
	options := C.struct_gf_dial_options{
		address: text(e.Address), local: text(e.Local), symbol: text(code.Symbol), carrier: text(o.Carrier), provider: text(o.Provider), host: text(o.Host),
		token: data(e.Token), token_bytes: C.uint32_t(len(e.Token)), digest: data(code.Digest[:]), code: data(code.Library), code_bytes: C.uint64_t(len(code.Library)),
		buffer_bytes: C.uint64_t(o.BufferBytes), slots: C.uint32_t(o.Slots), spin_ns: C.int64_t(o.Spin), timeout_ns: C.int64_t(timeout), cancel_fd: C.int(cancel),
	}
	var failure C.struct_gf_error
	h := &handle{}
	if C.gf_dial(&h.c, &options, &failure) != 0 {
		return nil, dialError(&failure)
	}
	return h, nil
}

// dialError turns the C side's failure into the package's errors.
func dialError(e *C.struct_gf_error) error {
	text := C.GoString(&e.text[0])
	switch e.kind {
	case C.GF_DIAL_REFUSED:
		return &RefusedError{Code: RefusalCode(e.code), Text: text}
	case C.GF_DIAL_FUNCTION:
		return &FunctionError{Kind: Kind(e.code), Signal: int(e.signal), Detail: text}
	case C.GF_DIAL_TIMEOUT:
		return fmt.Errorf("dial executor: %s: %w", text, context.DeadlineExceeded)
	case C.GF_DIAL_CANCELLED:
		return errors.New("dial executor: cancelled")
	}
	return &GoneError{Reason: text}
}

func (h *handle) abort()               { C.gf_abort(h.c) }
func (h *handle) close()               { C.gf_close(h.c) }
func (h *handle) kick()                { C.gf_kick(h.c) }
func (h *handle) control() (gone bool) { return C.gf_control(h.c) != 0 }
func (h *handle) ring() bool           { return C.gf_carrier(h.c) == C.GF_RING }
func (h *handle) bells() bool          { return C.gf_bells(h.c) != 0 }
func (h *handle) slots() (small, large int) {
	l := C.gf_conn_layout(h.c)
	return int(l.slots), int(l.large)
}

// buffers are valid until close.
func (h *handle) buffers(slot int) slotBuffers {
	p := C.gf_layout_place(C.gf_conn_layout(h.c), C.uint32_t(slot))
	return slotBuffers{
		request: unsafe.Slice((*byte)(C.gf_request(h.c, C.uint32_t(slot))), int(p.bytes)),
		result:  unsafe.Slice((*byte)(C.gf_result(h.c, C.uint32_t(slot))), int(p.bytes)),
	}
}

func (h *handle) submit(slot uint32, size, capacity int, timeout time.Duration) {
	C.gf_submit(h.c, C.uint32_t(slot), C.uint32_t(size), C.uint32_t(capacity), C.int64_t(timeout))
}

// call submits and harvests; only the harvester may use it.
func (h *handle) call(slot uint32, size, capacity int, timeout, spin time.Duration) []completion {
	n := C.gf_call(h.c, C.uint32_t(slot), C.uint32_t(size), C.uint32_t(capacity), C.int64_t(timeout), C.int64_t(spin), (*C.struct_gf_completion)(unsafe.Pointer(&h.out[0])), batch)
	return h.out[:n]
}

// progress harvests; only the harvester may use it.
func (h *handle) progress(spin time.Duration) []completion {
	n := C.gf_progress(h.c, C.int64_t(spin), (*C.struct_gf_completion)(unsafe.Pointer(&h.out[0])), batch)
	return h.out[:n]
}

func (h *handle) sleep(armed bool) int {
	var a C.int
	if armed {
		a = 1
	}
	return int(C.gf_sleep(h.c, a, -1))
}

func (h *handle) reason() string {
	var b [512]C.char
	C.gf_reason(h.c, &b[0], C.int(len(b)))
	return C.GoString(&b[0])
}

func (h *handle) detail(slot uint32) string {
	var b [128]C.char
	C.gf_detail(h.c, C.uint32_t(slot), &b[0], C.int(len(b)))
	return C.GoString(&b[0])
}
