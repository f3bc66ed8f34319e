package fabric

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Code is the shared library to run and the function in it: uint32_t f(void *args, uint32_t size, void *result).
type Code struct {
	Symbol  string
	Library []byte   // uploaded only when the executor lacks it
	Digest  [32]byte // SHA-256 of Library; zero means computed from it
}

// Endpoint is where an executor listens and what opens it.
type Endpoint struct {
	Address string // host:port#fingerprint of the control connection, see package fabric/channel
	Local   string // Unix socket of the same executor, tried first when it can be connected to; "" for none
	Token   []byte // signed by the broker, package api/token
}

// Options of a connection. The zero value is a good choice.
type Options struct {
	Carrier     string        // "ring", "ofi", or "" for the ring on the same node and ofi otherwise
	Provider    string        // libfabric provider, "" for the executor's choice
	BufferBytes uint64        // largest payload in either direction, default 1 MiB; at most what the lease has
	Slots       int           // requests in flight, 1 to 64, default 16
	Spin        time.Duration // both sides poll for so long before they sleep, default 50 µs; or SpinAlways, SpinNever
	Host        string        // address that the fabric listens on here; "" for the one that reaches the executor
}

// maxSlots and maxBuffer are limits of the wire format.
const (
	maxSlots  = 64
	maxBuffer = 1<<32 - 1<<16
)

// Budgets of Options.Spin that are no time.
const (
	SpinAlways time.Duration = -1 // never sleep
	SpinNever  time.Duration = -2 // sleep at once
)

// withDefaults fills what is zero.
func (o Options) withDefaults() Options {
	if o.BufferBytes == 0 {
		o.BufferBytes = 1 << 20
	}
	if o.Slots == 0 {
		o.Slots = 16
	}
	switch o.Spin {
	case 0:
		o.Spin = 50 * time.Microsecond
	case SpinNever:
		o.Spin = 0 // as both sides write it
	}
	return o
}

// validate says what cannot be served.
func (o Options) validate() error {
	switch {
	case o.Carrier != "" && o.Carrier != "ring" && o.Carrier != "ofi":
		return fmt.Errorf("carrier %q: want ring, ofi or nothing", o.Carrier)
	case o.Slots < 1 || o.Slots > maxSlots:
		return fmt.Errorf("%d slots: want 1 to %d", o.Slots, maxSlots)
	case o.BufferBytes > maxBuffer:
		return fmt.Errorf("buffer of %d bytes: at most %d", o.BufferBytes, uint64(maxBuffer))
	}
	return nil
}

// withDigest fills and checks the digest.
func (c Code) withDigest() (Code, error) {
	if c.Digest == ([32]byte{}) {
		if len(c.Library) == 0 {
			return c, errors.New("neither library nor digest given")
		}
		c.Digest = sha256.Sum256(c.Library)
	}
	return c, nil
}
