// Package identity says who makes a call. Clients and agents put a munge credential into the metadata of each RPC; the broker
// decodes it, once, and finds the caller's uid and gid in the context. A credential names the RPC that it was made for, so that
// one taken from another call opens nothing, and munged refuses a second use of the same one.
//
// It decides nothing about what a caller may do. libmunge is loaded at run time: a binary starts where it is absent, and New says
// what is missing.
package identity

import (
	"context"
	"errors"
	"fmt"
)

// Caller is who makes a call.
type Caller struct {
	UID, GID uint32
}

// Method makes and checks credentials. *Munge and None are the two there are.
type Method interface {
	// Name is the first word of the metadata value.
	Name() string
	// Encode makes a credential of the calling process that carries payload.
	Encode(payload string) (string, error)
	// Decode returns who made a credential and what it carries.
	Decode(credential string) (Caller, string, error)
}

// New returns the method that a configuration names: "munge" or "none".
func New(method, mungeSocket string) (Method, error) {
	switch method {
	case "munge":
		return NewMunge(mungeSocket)
	case "none":
		return None{}, nil
	}
	return nil, fmt.Errorf("identity method %q: want munge or none", method)
}

// ErrCredential is wrapped by every error about a credential that is not accepted, as opposed to munge being out of order.
var ErrCredential = errors.New("credential not accepted")

type callerKey struct{}

// With returns ctx with the caller of an RPC in it.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns the caller of the RPC that ctx belongs to; false when no interceptor of this package has seen it.
func From(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
