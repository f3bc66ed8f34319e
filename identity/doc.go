// Package identity says who makes a call. Clients and agents put a credential into the metadata of each RPC; the broker decodes
// it, once, and finds the caller's uid and gid in the context. A munge credential names the RPC that it was made for, so that one
// taken from another call opens nothing, and munged refuses a second use of the same one. A token of Slurm's auth/jwt, for sites
// without munge, is a bearer's until it expires: it is sent over TLS alone, which package identity/certs sets up.
//
// It decides nothing about what a caller may do. libmunge is loaded at run time: a binary starts where it is absent, and New says
// what is missing.
package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Caller is who makes a call.
type Caller struct {
	UID, GID uint32
}

// Method makes and checks credentials. *Munge, *JWT and None are what there is.
type Method interface {
	// Name is the first word of the metadata value.
	Name() string
	// Encode makes a credential of the calling process that carries payload.
	Encode(payload string) (string, error)
	// Decode returns who made a credential and what it carries.
	Decode(credential string) (Caller, string, error)
}

// Options say where a method finds what it needs.
type Options struct {
	MungeSocket string              // "" means munge's default
	KeyFile     string              // jwt, for who checks: Slurm's key
	TokenFile   string              // jwt, for who calls: "" means $SLURM_JWT
	Getenv      func(string) string // jwt, for who calls: nil means os.Getenv
}

// New returns the method that a configuration names: "munge", "jwt" or "none".
func New(method string, o Options) (Method, error) {
	switch method {
	case "munge":
		return NewMunge(o.MungeSocket)
	case "jwt":
		if o.Getenv == nil {
			o.Getenv = os.Getenv
		}
		j := FromEnvironment(o.Getenv)
		if o.TokenFile != "" {
			j = FromFile(o.TokenFile)
		}
		j.KeyFile = o.KeyFile
		return j, nil
	case "none":
		return None{}, nil
	}
	return nil, fmt.Errorf("identity method %q: want munge, jwt or none", method)
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
