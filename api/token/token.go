// Package token signs and verifies lease tokens. The broker signs one for each executor of a lease; a client shows it in the
// first frame of its connection to that executor, which verifies it with the broker's public key alone. Signatures are Ed25519
// (RFC 8032) over the encoded claims.
//
// It is a bearer token: whoever shows it is served; there is no client key. It names one executor, one lease, its epoch, its user and
// its library, and expires; the broker gives it to the lease's holder alone, whom it has authenticated. On the executor's node
// the socket lies in a folder of that user's, mode 0700. Between nodes control connection and payloads travel in the clear, as RDMA
// does: who can read a cluster's network sees the payloads and may replay a token until it expires, and a key that is proved
// possession of when a connection begins would keep such a one neither from reading nor from taking the connection over.
package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Claims is what a token says. It is valid for one executor, one epoch of its lease, until Expiry.
type Claims struct {
	Lease    uint64
	Epoch    uint64
	UID      uint32
	Expiry   time.Time // millisecond resolution
	Digest   [sha256.Size]byte
	Executor string // at most 255 bytes
}

// A token is refused with one of these.
var (
	ErrMalformed = errors.New("malformed token")
	ErrForged    = errors.New("token not signed by this cluster's broker")
	ErrExpired   = errors.New("token expired")
	ErrForeign   = errors.New("token is for another executor, lease or function")
)

const (
	version = 1
	fixed   = 1 + 8 + 8 + 4 + 8 + sha256.Size + 1
	// MaxSize bounds an encoded token in bytes.
	MaxSize = fixed + 255 + ed25519.SignatureSize
)

// Sign encodes and signs c.
func Sign(key ed25519.PrivateKey, c Claims) ([]byte, error) {
	if len(c.Executor) == 0 || len(c.Executor) > 255 {
		return nil, fmt.Errorf("sign token: executor id of %d bytes, want 1 to 255", len(c.Executor))
	}
	le := binary.LittleEndian
	b := make([]byte, 0, MaxSize)
	b = append(b, version)
	b = le.AppendUint64(b, c.Lease)
	b = le.AppendUint64(b, c.Epoch)
	b = le.AppendUint32(b, c.UID)
	b = le.AppendUint64(b, uint64(c.Expiry.UnixMilli()))
	b = append(b, c.Digest[:]...)
	b = append(b, byte(len(c.Executor)))
	b = append(b, c.Executor...)
	return append(b, ed25519.Sign(key, b)...), nil
}

// Verify returns what the token says when it is signed by key and has not expired at now. Whether it is meant for the caller
// (executor, lease, epoch, digest) is the caller's to compare; see ErrForeign.
func Verify(key ed25519.PublicKey, token []byte, now time.Time) (Claims, error) {
	var c Claims
	if len(key) != ed25519.PublicKeySize {
		return c, fmt.Errorf("verify token: public key of %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	if len(token) < fixed+1+ed25519.SignatureSize || len(token) > MaxSize || token[0] != version {
		return c, ErrMalformed
	}
	body, signature := token[:len(token)-ed25519.SignatureSize], token[len(token)-ed25519.SignatureSize:]
	if int(body[fixed-1]) != len(body)-fixed {
		return c, ErrMalformed
	}
	if !ed25519.Verify(key, body, signature) {
		return c, ErrForged
	}
	le := binary.LittleEndian
	c.Lease = le.Uint64(body[1:])
	c.Epoch = le.Uint64(body[9:])
	c.UID = le.Uint32(body[17:])
	c.Expiry = time.UnixMilli(int64(le.Uint64(body[21:])))
	copy(c.Digest[:], body[29:])
	c.Executor = string(body[fixed:])
	if !now.Before(c.Expiry) {
		return c, ErrExpired
	}
	return c, nil
}
