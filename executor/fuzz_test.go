package executor

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// FuzzClientFrames reads what a client sends as its reader does, up to the library.
func FuzzClientFrames(f *testing.F) {
	hello := control.Hello{Carriers: 1 << control.CarrierOFI, BufferBytes: 1 << 20, Slots: 1, Token: []byte("token"), Symbol: "run", Provider: "tcp"}.Encode()
	attach := control.Attach{Key: 1, Base: 2, Address: []byte("address")}.Encode(control.TypeAttach)
	code := append([]byte{4, 0, 0, 0, control.TypeCode, 0, 0, 0}, "\x7fELF"...)
	for _, b := range [][]byte{hello, bytes.Join([][]byte{hello, code, attach}, nil), hello[:9], {255, 255, 255, 127, control.TypeCode, 0, 0, 0}, {255, 255, 255, 255, 1, 0, 0, 0}} {
		f.Add(b)
	}
	const limit = 1 << 10
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		for {
			head, body, err := readFrame(in)
			if err != nil {
				return
			}
			switch head.Type {
			case control.TypeHello:
				_, _ = control.ParseHello(body)
			case control.TypeAttach:
				_, _ = control.ParseAttach(body)
			case control.TypeCode:
				file, digest, err := receiveCode(in, uint64(head.Size), limit)
				if err != nil {
					return
				}
				text, err := io.ReadAll(io.NewSectionReader(file, 0, limit+1))
				if e := file.Close(); len(text) != int(head.Size) || len(text) > limit || errors.Join(err, e) != nil {
					t.Errorf("%d bytes of %d are kept as %x: %v", len(text), head.Size, digest, err)
				}
			}
		}
	})
}
