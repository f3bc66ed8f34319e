package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	header  = "authorization"
	purpose = "gleaner/1 " // before the RPC's name in a credential's payload
	// maxCredential bounds what is handed to munged, in bytes.
	maxCredential = 16 << 10
)

// PerRPC puts a fresh credential into each RPC. It implements credentials.PerRPCCredentials; see grpc.WithPerRPCCredentials.
type PerRPC struct {
	Method Method
}

// GetRequestMetadata makes the credential.
func (p PerRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	credential, err := p.Method.Encode(purpose + info.Method)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{header: p.Method.Name() + " " + credential}, nil
}

// RequireTransportSecurity says whether a credential that is overheard is of use: munge's serves once, for one RPC, Slurm's token
// again and again.
func (p PerRPC) RequireTransportSecurity() bool {
	_, bearer := p.Method.(*JWT)
	return bearer
}

// Unary is the server's interceptor for plain RPCs: it puts the caller into the context, or refuses.
func Unary(m Method) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := authenticate(ctx, m, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// Stream is the server's interceptor for streams.
func Stream(m Method) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := authenticate(stream.Context(), m, info.FullMethod)
		if err != nil {
			return err
		}
		return next(srv, &identified{stream, ctx})
	}
}

type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *identified) Context() context.Context { return s.ctx }

func authenticate(ctx context.Context, m Method, rpc string) (context.Context, error) {
	values := metadata.ValueFromIncomingContext(ctx, header)
	if len(values) != 1 {
		return nil, status.Errorf(codes.Unauthenticated, "call carries %d credentials, want one (metadata %q: \"%s <credential>\")", len(values), header, m.Name())
	}
	caller, err := check(m, values[0], rpc)
	switch {
	case errors.Is(err, ErrCredential):
		return nil, status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return nil, status.Errorf(codes.Aborted, "broker cannot check credentials: %v", err)
	}
	return With(ctx, caller), nil
}

// check reads "method credential" and compares what the credential was made for.
func check(m Method, value, rpc string) (Caller, error) {
	method, credential, _ := strings.Cut(value, " ")
	if method != m.Name() {
		return Caller{}, fmt.Errorf("%w: it is of method %.20q, this broker wants %q (see identity.method in broker.toml)", ErrCredential, method, m.Name())
	}
	if len(credential) > maxCredential || strings.ContainsRune(credential, 0) {
		return Caller{}, fmt.Errorf("%w: %d bytes, want at most %d without NUL", ErrCredential, len(credential), maxCredential)
	}
	caller, payload, err := m.Decode(credential)
	if err != nil {
		return Caller{}, err
	}
	if _, bound := m.(*Munge); bound && payload != purpose+rpc {
		return Caller{}, fmt.Errorf("%w: it was made for %.80q, not for %q", ErrCredential, payload, purpose+rpc)
	}
	return caller, nil
}
