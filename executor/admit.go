package executor

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// Refusal codes of the control protocol; fabric.RefusalCode in the client.
const (
	refusedProtocol    = 1
	refusedMalformed   = 2
	refusedForged      = 3
	refusedExpired     = 4
	refusedForeign     = 5
	refusedEpoch       = 6
	refusedUnassigned  = 7
	refusedCarrier     = 8
	refusedConnections = 9
	refusedDigest      = 10
	refusedAttach      = 11
)

// refusal is why a client is not served.
type refusal struct {
	code uint32
	text string
}

// admit decides whether a client may in: its token must be the broker's, in time, and for this executor, lease, function and
// no older epoch. It returns the token's epoch.
func admit(a *wire.Assign, epoch uint64, h control.Hello, now time.Time) (uint64, *refusal) {
	if a == nil {
		return 0, &refusal{refusedUnassigned, "this executor serves no lease yet"}
	}
	claims, err := token.Verify(ed25519.PublicKey(a.PublicKey), h.Token, now)
	switch {
	case errors.Is(err, token.ErrForged):
		return 0, &refusal{refusedForged, err.Error()}
	case errors.Is(err, token.ErrExpired):
		return 0, &refusal{refusedExpired, fmt.Sprintf("%v at %s: ask the broker for another", err, claims.Expiry.UTC().Format(time.RFC3339))}
	case err != nil:
		return 0, &refusal{refusedMalformed, err.Error()}
	case claims.Executor != a.Executor || claims.Lease != a.Lease:
		return 0, &refusal{refusedForeign, fmt.Sprintf("%v: it names executor %s", token.ErrForeign, claims.Executor)}
	case string(claims.Digest[:]) != string(a.Digest) || h.Digest != claims.Digest:
		return 0, &refusal{refusedForeign, token.ErrForeign.Error() + ": the library differs from the lease's"}
	case h.Symbol != "" && h.Symbol != a.Symbol:
		return 0, &refusal{refusedForeign, fmt.Sprintf("%v: the lease is for symbol %s, not %s", token.ErrForeign, a.Symbol, h.Symbol)}
	case claims.Epoch < epoch:
		return 0, &refusal{refusedEpoch, fmt.Sprintf("token of epoch %d, the lease is at %d", claims.Epoch, epoch)}
	}
	return claims.Epoch, nil
}

// terms chooses carrier and buffers for a client that may in.
func terms(a *wire.Assign, h control.Hello, local bool) (control.Accept, *refusal) {
	out := control.Accept{BufferBytes: h.BufferBytes, Slots: min(max(h.Slots, 1), maxConnections), Provider: a.Provider}
	if a.BufferBytes > 0 {
		out.BufferBytes = min(out.BufferBytes, a.BufferBytes)
	}
	out.BufferBytes = max(out.BufferBytes, 1)
	if out.Provider == "" {
		out.Provider = defaultProvider
	}
	switch {
	case local && h.Carriers&(1<<control.CarrierRing) != 0:
		out.Carrier = control.CarrierRing
	case h.Carriers&(1<<control.CarrierOFI) != 0 && a.Provider != "none":
		out.Carrier = control.CarrierOFI
	default:
		return out, &refusal{refusedCarrier, "no carrier in common: the ring needs the node's Unix socket, ofi a libfabric provider"}
	}
	return out, nil
}
