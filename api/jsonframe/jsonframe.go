// Package jsonframe reads and writes the frames of the node-local sockets between agent, executor and images helper: a four-byte
// little-endian length, at most Max, and a JSON object of that length.
package jsonframe

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Max bounds the JSON object of a frame in bytes.
const Max = 1 << 20

// ErrTooLong is returned for a frame above Max; nothing of its body has been read.
var ErrTooLong = errors.New("frame too long")

// Write sends v as one frame, in a single call to w.
func Write(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > Max {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(body), Max)
	}
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// Read takes one frame from r into v. It returns io.EOF when r ends between frames.
func Read(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > Max {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, size, Max)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("frame cut short: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}
