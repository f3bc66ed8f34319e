package identity

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gleaner-hpc/gleaner/identity/certs"
)

// minKey is the least length of a key for HS256 that is taken, in bytes: that of its hash (RFC 7518, 3.2).
const minKey = 32

// JWT knows callers by the tokens of Slurm's auth/jwt, as `scontrol token` prints them: HS256, claims sun (user name), iat and exp.
// A token names no RPC and is of use until it expires, so it travels over TLS alone.
type JWT struct {
	// KeyFile holds Slurm's key (jwt_key in AuthAltParameters); it is what Decode checks with. It is read each time, so that a key
	// can be changed beneath a running broker.
	KeyFile string
	// Token returns the caller's token; it is what Encode sends.
	Token func() (string, error)

	lookup func(name string) (*user.User, error) // nil: the system's user database
}

// FromEnvironment returns a JWT that sends what SLURM_JWT holds, as Slurm's own commands do.
func FromEnvironment(getenv func(string) string) *JWT {
	return &JWT{Token: func() (string, error) {
		token := getenv("SLURM_JWT")
		if token == "" {
			return "", errors.New("identity.method is jwt and SLURM_JWT is not set: export $(scontrol token lifespan=3600)")
		}
		return token, nil
	}}
}

// FromFile returns a JWT that sends what a file holds, read each time, so that it can be renewed beneath a running agent.
func FromFile(path string) *JWT {
	return &JWT{Token: func() (string, error) {
		if err := certs.Private(path); err != nil {
			return "", fmt.Errorf("identity.token_file: %w", err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("identity.token_file: %w", err)
		}
		return strings.TrimPrefix(strings.TrimSpace(string(text)), "SLURM_JWT="), nil
	}}
}

// Name is "jwt".
func (*JWT) Name() string { return "jwt" }

// Encode returns the caller's token. There is nothing to carry a payload in.
func (j *JWT) Encode(string) (string, error) {
	if j.Token == nil {
		return "", errors.New("this process has no token to send")
	}
	return j.Token()
}

// claims are those that Slurm writes.
type claims struct {
	User string `json:"sun"`
	jwt.RegisteredClaims
}

// Decode checks a token and looks its user up. It returns no payload.
func (j *JWT) Decode(credential string) (Caller, string, error) {
	key, err := j.key()
	if err != nil {
		return Caller{}, "", err
	}
	name, err := verify(credential, key, time.Now())
	if err != nil {
		return Caller{}, "", err
	}
	lookup := j.lookup
	if lookup == nil {
		lookup = user.Lookup
	}
	u, err := lookup(name)
	if err != nil {
		return Caller{}, "", fmt.Errorf("%w: the broker's host does not know user %q", ErrCredential, name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, e := strconv.ParseUint(u.Gid, 10, 32)
	if err = errors.Join(err, e); err != nil {
		return Caller{}, "", fmt.Errorf("%w: user %q: %w", ErrCredential, name, err)
	}
	return Caller{UID: uint32(uid), GID: uint32(gid)}, "", nil
}

func (j *JWT) key() ([]byte, error) {
	if err := certs.Private(j.KeyFile); err != nil {
		return nil, fmt.Errorf("identity.jwt_key_file: %w", err)
	}
	key, err := os.ReadFile(j.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("identity.jwt_key_file: %w", err)
	}
	if len(key) < minKey {
		return nil, fmt.Errorf("identity.jwt_key_file %s: %d bytes, want at least %d", j.KeyFile, len(key), minKey)
	}
	return key, nil
}

// verify returns the user that a token names. It takes HS256 alone, whatever the token's header says.
func verify(token string, key []byte, now time.Time) (string, error) {
	var c claims
	_, err := jwt.ParseWithClaims(strings.TrimSpace(token), &c, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithStrictDecoding())
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return "", fmt.Errorf("%w: the token of user %q expired on %s: export $(scontrol token)", ErrCredential, c.User, c.ExpiresAt.Format(time.RFC3339))
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrCredential, err)
	case c.User == "":
		return "", fmt.Errorf("%w: the token has no claim sun, the user's name", ErrCredential)
	}
	return c.User, nil
}
