package control

import (
	"errors"
	"reflect"
	"testing"
)

func TestRoundTrips(t *testing.T) {
	hello := Hello{Carriers: 6, BufferBytes: 1 << 20, Slots: 16, SpinNS: -1, Digest: [32]byte{1, 2}, Token: []byte("token"), Symbol: "run", Provider: "tcp;ofi_rxm"}
	frame := hello.Encode()
	head, err := ParseHead(frame)
	if err != nil || head.Type != TypeHello || int(head.Size) != len(frame)-HeadBytes {
		t.Fatalf("head %+v, %v", head, err)
	}
	if got, err := ParseHello(frame[HeadBytes:]); err != nil || !reflect.DeepEqual(got, hello) {
		t.Errorf("got %+v, %v", got, err)
	}
	attach := Attach{Key: 1, Base: 2, Address: []byte("address")}
	if got, err := ParseAttach(attach.Encode(TypeAttach)[HeadBytes:]); err != nil || !reflect.DeepEqual(got, attach) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMalformed(t *testing.T) {
	whole := Hello{Token: []byte("token")}.Encode()[HeadBytes:]
	for n := range whole {
		if _, err := ParseHello(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for a HELLO", n, len(whole))
		}
	}
	if _, err := ParseHello(append(whole, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
	for name, b := range map[string][]byte{
		"body too long": {1, 0x10, 0, 0, TypeHello, 0, 0, 0}, "reserved bits": {0, 0, 0, 0, TypeHello, 0, 1, 0}, "cut": {0, 0, 0},
	} {
		if _, err := ParseHead(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Hello{Token: []byte("token"), Symbol: "run"}.Encode()[HeadBytes:])
	f.Add(Attach{Address: []byte("address")}.Encode(TypeAttach)[HeadBytes:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHello(b); err == nil && string(h.Encode()[HeadBytes:]) != string(b) {
			t.Errorf("%x is read as %+v", b, h)
		}
		if a, err := ParseAttach(b); err == nil && string(a.Encode(TypeAttach)[HeadBytes:]) != string(b) {
			t.Errorf("%x is read as %+v", b, a)
		}
	})
}
