package identity

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
)

var slurmKey = []byte(strings.Repeat("0123456789abcdef", 2))

// keyFile writes Slurm's key with a mode.
func keyFile(t *testing.T, key []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwt_hs256.key")
	if err := os.WriteFile(path, key, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func signed(t *testing.T, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJWT(t *testing.T) {
	now := time.Now()
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"sun": "alice", "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Minute).Unix()}
	}
	with := func(key string, value any) jwt.MapClaims {
		c := good()
		c[key] = value
		if value == nil {
			delete(c, key)
		}
		return c
	}
	hs := func(c jwt.MapClaims) string { return signed(t, jwt.SigningMethodHS256, slurmKey, c) }
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	j := &JWT{KeyFile: keyFile(t, slurmKey, 0o600), lookup: func(name string) (*user.User, error) {
		if name != "alice" {
			return nil, user.UnknownUserError(name)
		}
		return &user.User{Username: name, Uid: "4711", Gid: "100"}, nil
	}}
	caller, _, err := j.Decode(hs(good()))
	if err != nil || caller != (Caller{4711, 100}) {
		t.Errorf("got %+v, %v", caller, err)
	}
	for name, test := range map[string]struct{ token, want string }{
		"expired":         {hs(with("exp", now.Add(-time.Second).Unix())), "expired on"},
		"never expires":   {hs(with("exp", nil)), "exp"},
		"of the future":   {hs(with("iat", now.Add(time.Hour).Unix())), "issued"},
		"nobody's":        {hs(with("sun", nil)), "no claim sun"},
		"a stranger's":    {hs(with("sun", "mallory")), `does not know user "mallory"`},
		"another key's":   {signed(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), good()), "signature is invalid"},
		"without a sign":  {signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()), "signing method none is invalid"},
		"of RSA":          {signed(t, jwt.SigningMethodRS256, private, good()), "signing method RS256 is invalid"},
		"of another hash": {signed(t, jwt.SigningMethodHS512, slurmKey, good()), "signing method HS512 is invalid"},
		"cut":             {hs(good())[:40], "malformed"},
		"empty":           {"", "malformed"},
		"sun is a number": {hs(with("sun", 0)), "malformed"},
	} {
		if _, _, err := j.Decode(test.token); !errors.Is(err, ErrCredential) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want …%s…", name, err, test.want)
		}
	}
}

func TestJWTKey(t *testing.T) {
	for name, test := range map[string]struct{ path, want string }{
		"readable by all": {keyFile(t, slurmKey, 0o644), "can be read by every user"},
		"too short":       {keyFile(t, slurmKey[:16], 0o600), "want at least 32"},
		"missing":         {"/nonexistent/key", "identity.jwt_key_file"},
	} {
		_, _, err := (&JWT{KeyFile: test.path}).Decode("x")
		if err == nil || errors.Is(err, ErrCredential) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want …%s… that is not the caller's fault", name, err, test.want)
		}
	}
}

func TestJWTOfTheCaller(t *testing.T) {
	environment := map[string]string{}
	j := FromEnvironment(func(key string) string { return environment[key] })
	if _, err := j.Encode(""); err == nil || !strings.Contains(err.Error(), "scontrol token") {
		t.Errorf("got %v", err)
	}
	environment["SLURM_JWT"] = "abc"
	if token, err := j.Encode(""); err != nil || token != "abc" {
		t.Errorf("got %q, %v", token, err)
	}
	if token, err := FromFile(keyFile(t, []byte("SLURM_JWT=abc\n"), 0o600)).Encode(""); err != nil || token != "abc" {
		t.Errorf("got %q, %v", token, err)
	}
	if _, err := FromFile(keyFile(t, []byte("abc"), 0o604)).Encode(""); err == nil || !strings.Contains(err.Error(), "can be read by every user") {
		t.Errorf("got %v", err)
	}
}

// A token that can be used again never travels in the clear.
func TestJWTNeedsTLS(t *testing.T) {
	j := FromEnvironment(func(string) string { return "abc" })
	if !(PerRPC{j}).RequireTransportSecurity() || (PerRPC{None{}}).RequireTransportSecurity() {
		t.Error("a bearer's token asks for TLS, and the others do not")
	}
	if _, err := grpc.NewClient("127.0.0.1:1", grpc.WithPerRPCCredentials(PerRPC{j})); err == nil {
		t.Error("a client without TLS takes a bearer's token")
	}
}

func FuzzJWT(f *testing.F) {
	now := time.Unix(1_790_000_000, 0)
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sun": "alice", "iat": now.Unix(), "exp": now.Unix() + 60}).SignedString(slurmKey)
	if err != nil {
		f.Fatal(err)
	}
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"sun": "alice", "exp": now.Unix() + 60}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	for _, s := range []string{token, none, "", "..", "a.b.c", token[:len(token)-1], "eyJhbGciOiJIUzI1NiJ9.e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := verify(text, slurmKey, now)
		if err == nil && (name != "alice" || strings.TrimSpace(text) != token) {
			t.Errorf("%q is taken for a token of %q", text, name)
		}
		if err != nil && !errors.Is(err, ErrCredential) {
			t.Errorf("%q: %v is not the caller's fault", text, err)
		}
	})
}
