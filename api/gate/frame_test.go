package gate_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/api/gate"
)

var update = flag.Bool("update", false, "write testdata anew")

// The C side, slurmplugin/ctest/frame_test.c, holds the same frames to the same files.
var vectors = map[string]gate.Frame{
	"claim.bin": {Kind: gate.Claim, Flags: gate.FlagShareNo, Job: 4711, Step: 0xfffffffc, UID: 1000, MiB: 2048,
		Nanos: 1795410956000000001, Cores: "0-2,5", Node: "n01"},
	"warn.bin": {Kind: gate.Warn, Job: 0xffffffff, Step: 0xfffffffe, Nanos: 1, GPUs: "0,1", Node: "n01"},
	"blunt.bin": {Kind: gate.Claim, Flags: gate.FlagBlunt, Job: 1, Step: 0xfffffffe, UID: 0xffffffff, MiB: gate.MemoryUnknown,
		Node: "n01"},
	"done.bin": {Kind: gate.Done, Nanos: 1500000, Evicted: 8},
}

func TestVectors(t *testing.T) {
	for name, frame := range vectors {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			made, err := frame.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(path, made, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(made, want) {
				t.Errorf("wrote %x, want %x", made, want)
			}
			rest := strings.NewReader("next")
			got, err := gate.Read(bytesThen(want, rest))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&frame, got); diff != "" {
				t.Error(diff)
			}
			if rest.Len() != 4 {
				t.Error("read beyond the frame")
			}
		})
	}
}

// reader gives the frame's bytes one by one and then what follows.
type reader struct {
	frame []byte
	rest  *strings.Reader
}

func bytesThen(frame []byte, rest *strings.Reader) *reader { return &reader{frame, rest} }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.frame) == 0 {
		return r.rest.Read(p)
	}
	n := copy(p[:1], r.frame)
	r.frame = r.frame[n:]
	return n, nil
}

func TestMalformed(t *testing.T) {
	claim := vectors["claim.bin"]
	good, err := claim.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"magic":         func(b []byte) []byte { b[3] = '2'; return b },
		"length":        func(b []byte) []byte { b[8]++; return b },
		"huge":          func(b []byte) []byte { b[11] = 0xff; return b },
		"list too long": func(b []byte) []byte { b[45] = 0x10; return b },
		"cut":           func(b []byte) []byte { return b[:len(b)-1] },
	} {
		if _, err := gate.Read(bytes.NewReader(damage(bytes.Clone(good)))); !errors.Is(err, gate.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := gate.Frame{Kind: gate.Claim, Cores: strings.Repeat("1", gate.MaxFrame)}
	if _, err := long.Append(nil); !errors.Is(err, gate.ErrFrame) {
		t.Errorf("a frame too long was written: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, frame := range vectors {
		b, err := frame.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := gate.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := frame.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.Clone(b[:len(again)])
		b[50], b[51] = 0, 0 // reserved
		if !bytes.Equal(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
