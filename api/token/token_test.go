package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	now  = time.UnixMilli(1_700_000_000_000)
	seed = make([]byte, ed25519.SeedSize)
	key  = ed25519.NewKeyFromSeed(seed)
	pub  = key.Public().(ed25519.PublicKey)
)

func claims() Claims {
	return Claims{Lease: 42, Epoch: 7, UID: 1000, Expiry: now.Add(time.Minute), Digest: sha256.Sum256([]byte("code")), Executor: "42-3"}
}

func TestRoundTrip(t *testing.T) {
	signed, err := Sign(key, claims())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(pub, signed, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(claims(), got); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	signed, err := Sign(key, claims())
	if err != nil {
		t.Fatal(err)
	}
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize)))
	foreign, err := Sign(other, claims())
	if err != nil {
		t.Fatal(err)
	}
	longer := append(append([]byte{}, signed...), 0)
	tests := map[string]struct {
		token []byte
		now   time.Time
		want  error
	}{
		"expired":         {signed, now.Add(time.Minute), ErrExpired},
		"signed by other": {foreign, now, ErrForged},
		"empty":           {nil, now, ErrMalformed},
		"cut short":       {signed[:len(signed)-1], now, ErrMalformed},
		"too long":        {longer, now, ErrMalformed},
		"version":         {append([]byte{9}, signed[1:]...), now, ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(pub, test.token, test.now); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	for i := 1; i < len(signed); i++ {
		changed := append([]byte{}, signed...)
		changed[i] ^= 1
		if _, err := Verify(pub, changed, now); err == nil {
			t.Errorf("byte %d changed and still accepted", i)
		}
	}
	if _, err := Sign(key, Claims{}); err == nil {
		t.Error("signed a token for no executor")
	}
	if _, err := Verify(pub[:5], signed, now); err == nil {
		t.Error("verified with a cut key")
	}
}

func FuzzVerify(f *testing.F) {
	signed, err := Sign(key, claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add([]byte{version})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Verify(pub, b, now); err == nil && !cmp.Equal(got, claims()) {
			t.Errorf("accepted claims that nobody signed: %+v", got)
		}
	})
}
