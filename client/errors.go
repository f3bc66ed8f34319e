package client

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/api"
)

// Why a call to the broker failed; use errors.Is.
var (
	ErrUnreachable = errors.New("broker not reachable")
	ErrDenied      = errors.New("denied")
	ErrNoCapacity  = errors.New("no node could ever hold this")
	ErrInvalid     = errors.New("invalid request")
	ErrNotFound    = errors.New("not found")
	ErrEnded       = errors.New("lease has ended")
	// ErrNotNow is the broker's own word that it cannot do this at the moment, such as while it cannot read slurmctld. It is also an
	// ErrUnreachable: whoever tries again later does so for both.
	ErrNotNow = errors.New("broker cannot do this now")
)

// BrokerError is a call that the broker refused or never answered. It unwraps to one of the errors above, or to none of them when
// the broker itself failed.
type BrokerError struct {
	Kind error // nil for a failure inside the broker
	Op   string
	Text string
}

func (e *BrokerError) Error() string {
	if e.Kind == nil || errors.Is(e.Kind, ErrEnded) || errors.Is(e.Kind, ErrNotNow) {
		return e.Op + ": " + e.Text
	}
	return fmt.Sprintf("%s: %v: %s", e.Op, e.Kind, e.Text)
}

func (e *BrokerError) Unwrap() error { return e.Kind }

// Is makes every ErrNotNow an ErrUnreachable.
func (e *BrokerError) Is(target error) bool {
	return target == ErrUnreachable && errors.Is(e.Kind, ErrNotNow)
}

// Describe turns an error of a call to the broker into a *BrokerError; op says what was tried. Use it for calls made through
// Leases and Cluster.
func Describe(op string, err error) error {
	if err == nil {
		return nil
	}
	s, _ := status.FromError(err)
	kinds := map[codes.Code]error{
		codes.Unavailable:        ErrUnreachable,
		codes.Aborted:            ErrNotNow, // no transport says so: the broker has answered
		codes.DeadlineExceeded:   ErrUnreachable,
		codes.Unauthenticated:    ErrDenied,
		codes.PermissionDenied:   ErrDenied,
		codes.ResourceExhausted:  ErrDenied,
		codes.InvalidArgument:    ErrInvalid,
		codes.FailedPrecondition: ErrEnded,
		codes.NotFound:           ErrNotFound,
	}
	text := s.Message()
	if strings.Contains(text, "error reading server preface") { // all that gRPC says of a broker that waits for a handshake
		text += ": does the broker want TLS? Set tls.ca_file, or GLEANER_CA, to the certificate that signs the broker's"
	}
	return &BrokerError{Kind: kinds[s.Code()], Op: op, Text: text}
}

// EndedError is the final error of a task whose lease ended first.
type EndedError struct {
	Lease  uint64
	Reason api.EndReason
	Detail string
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("lease %d has ended: %s", e.Lease, reasonAndDetail(e.Reason, e.Detail))
}

// Is makes errors.Is(err, ErrEnded) true, and ErrNoCapacity for a lease that turned out to be more than any node can hold.
func (e *EndedError) Is(target error) bool {
	return target == ErrEnded || target == ErrNoCapacity && e.Reason == api.EndReason_REFUSED
}

// ReasonText names a reason as people read it, such as "job ended".
func ReasonText(r api.EndReason) string {
	if r == api.EndReason_END_REASON_UNSPECIFIED {
		return "no reason given"
	}
	return strings.ReplaceAll(strings.ToLower(r.String()), "_", " ")
}

// reasonAndDetail joins the two; details of agents begin with the reason themselves.
func reasonAndDetail(r api.EndReason, detail string) string {
	switch text := ReasonText(r); {
	case detail == "":
		return text
	case strings.HasPrefix(detail, text+":"):
		return detail
	default:
		return text + ": " + detail
	}
}

// LostError is the final error of a task that lost too many executors in a row to failures that were no evictions.
type LostError struct {
	Attempts int
	Last     error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("executor lost in each of %d attempts, the last time: %v", e.Attempts, e.Last)
}

func (e *LostError) Unwrap() error { return e.Last }

// InputError is the final error of a task whose input could not be read or does not fit.
type InputError struct{ Err error }

func (e *InputError) Error() string { return "input: " + e.Err.Error() }

func (e *InputError) Unwrap() error { return e.Err }
