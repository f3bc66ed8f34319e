package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// InPlace is a task's way to write its arguments and read its result where the data path moves them, instead of Load and Output.
// Neither function may keep the memory that it is given, which others use next.
type InPlace struct {
	Bytes int // room for arguments and for the result; 0 means the lease's buffer, of which two per executor are at hand
	// Write fills args and returns how many bytes it has written. It is called again for another run after an eviction.
	Write func(args []byte) (int, error)
	// Read is called once, if the function has succeeded and before the call ends. nil ignores the result.
	Read func(result []byte)
}

// lender is a Conn that lends its memory, as those of package fabric do.
type lender interface {
	Borrow(ctx context.Context, bytes int) (fabric.Buffer, error)
}

var _ lender = (*fabric.Conn)(nil)

// runInPlace is run for a task in place. A Conn that lends nothing is given memory of this process.
func (p *pool) runInPlace(ctx context.Context, t *InPlace, m *member) error {
	room := t.Bytes
	if room == 0 {
		room = int(p.buffer)
	}
	if room < 0 || uint64(room) > p.buffer {
		return &InputError{fmt.Errorf("room for %d bytes; the lease's buffer holds %d, ask for a larger one", room, p.buffer)}
	}
	l, ok := m.conn.(lender)
	if !ok {
		return p.runCopied(ctx, t, m, room)
	}
	b, err := l.Borrow(ctx, room)
	if err != nil {
		return err
	}
	defer b.Release()
	n, err := t.write(b.Args()[:room])
	if err != nil {
		return err
	}
	result, err := b.Invoke(ctx, n, room, p.options.Timeout)
	if err == nil && t.Read != nil {
		t.Read(result)
	}
	return err
}

func (p *pool) runCopied(ctx context.Context, t *InPlace, m *member, room int) error {
	args, result := make([]byte, room), make([]byte, room)
	n, err := t.write(args)
	if err != nil {
		return err
	}
	n, err = m.conn.Invoke(ctx, args[:n], result, p.options.Timeout)
	if err == nil && t.Read != nil {
		t.Read(result[:n])
	}
	return err
}

// write has the arguments written; nobody else could do that better.
func (t *InPlace) write(args []byte) (int, error) {
	if t.Write == nil {
		return 0, &InputError{errors.New("a task in place without Write")}
	}
	n, err := t.Write(args)
	if err == nil && (n < 0 || n > len(args)) {
		err = fmt.Errorf("%d bytes written, room for %d", n, len(args))
	}
	if err != nil {
		return 0, &InputError{err}
	}
	return n, nil
}
