package fabric

import (
	"fmt"
	"syscall"
)

// Kind names why a function gave no result.
type Kind int

// The kinds are part of the control protocol; their numbers do not change.
const (
	Crashed          Kind = 1 // ended by a signal of its own making, see FunctionError.Signal
	DeadlineExceeded Kind = 2 // ran longer than its timeout and was killed
	ResultTooLarge   Kind = 3 // returned more than the caller has room for, or wrote behind the result buffer
	UnknownSymbol    Kind = 4 // the library has no such function
	LoadFailed       Kind = 5 // the library cannot be loaded; Detail is the loader's reason
	Exited           Kind = 6 // called exit
	BadRequest       Kind = 7 // the request does not fit the buffers of the connection
)

var kindNames = map[Kind]string{
	Crashed: "function crashed", DeadlineExceeded: "function exceeded its deadline", ResultTooLarge: "result too large",
	UnknownSymbol: "unknown symbol", LoadFailed: "library does not load", Exited: "function called exit", BadRequest: "bad request",
}

// String is the kind in words.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("function error %d", int(k))
}

// FunctionError is the function's own failure. The executor lives on, and running the request again elsewhere would not help.
type FunctionError struct {
	Kind   Kind
	Signal int    // for Crashed: the signal that ended the function, otherwise 0
	Detail string // what else is known, may be empty
}

// Error says what happened, with the signal by name and the detail.
func (e *FunctionError) Error() string {
	text := e.Kind.String()
	if e.Signal != 0 {
		text += fmt.Sprintf(" (signal %d, %s)", e.Signal, syscall.Signal(e.Signal))
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// Is matches a FunctionError of the same Kind, so that errors.Is(err, &FunctionError{Kind: Crashed}) works.
func (e *FunctionError) Is(target error) bool {
	t, ok := target.(*FunctionError)
	return ok && t.Kind == e.Kind
}

// GoneError says that the executor is no longer there: revoked, killed or unreachable. The task may run again elsewhere.
type GoneError struct {
	Reason string
	Began  bool // the function may have begun; false only when it certainly has not
}

// Error is the reason.
func (e *GoneError) Error() string { return "executor is gone: " + e.Reason }

// RefusalCode names why an executor did not accept a connection.
type RefusalCode int

// The codes are part of the control protocol; their numbers do not change.
const (
	RefusedProtocol    RefusalCode = 1  // not this protocol, or not this version of it
	RefusedMalformed   RefusalCode = 2  // the token cannot be read
	RefusedForged      RefusalCode = 3  // the token is not signed by the broker
	RefusedExpired     RefusalCode = 4  // the token's time is over: ask the broker for another
	RefusedForeign     RefusalCode = 5  // the token is for another executor, lease or function
	RefusedEpoch       RefusalCode = 6  // the token is of an older epoch of the lease
	RefusedUnassigned  RefusalCode = 7  // the executor serves no lease yet
	RefusedCarrier     RefusalCode = 8  // no carrier that both sides have
	RefusedConnections RefusalCode = 9  // too many connections
	RefusedDigest      RefusalCode = 10 // the uploaded library is not the one the lease names
	RefusedAttach      RefusalCode = 11 // the carrier could not be set up
)

// RefusedError is the executor's refusal to serve this connection. Nothing has run.
type RefusedError struct {
	Code RefusalCode
	Text string
}

// Error is the executor's text.
func (e *RefusedError) Error() string { return "executor refused the connection: " + e.Text }

// Is matches a RefusedError of the same Code.
func (e *RefusedError) Is(target error) bool {
	t, ok := target.(*RefusedError)
	return ok && t.Code == e.Code
}
