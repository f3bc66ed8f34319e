package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// The ring's memory, after fabric/wire.h; one slot of one page each way and what lies between fits in.
const (
	entryBytes = 64
	entries    = 128
	requestsAt = 192
	repliesAt  = requestsAt + entries*entryBytes
	arenaSize  = 256 << 10
	badRequest = 7 // status of a reply
)

// arena makes memory for the ring, sealed as it must be or not.
func arena(size int64, seals int) (*os.File, error) {
	fd, err := unix.MemfdCreate("hostile-arena", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "arena")
	if err := f.Truncate(size); err != nil {
		return f, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return f, err
}

const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func event() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return os.NewFile(uintptr(fd), "event"), err
}

// attachWith sends ATTACH with descriptors.
func (r *raw) attachWith(files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	_, _, err := r.Conn.(*net.UnixConn).WriteMsgUnix(control.Attach{}.Encode(control.TypeAttach), unix.UnixRights(fds...), nil)
	return err
}

// wrongDescriptors offers for shared memory what is none, or none that can be trusted.
func wrongDescriptors(l *lease) error {
	l.serves() // the library is there
	wake, err := event()
	if err != nil {
		return err
	}
	defer func() { _ = wake.Close() }()
	null, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	small, err1 := arena(4096, sealed)
	loose, err2 := arena(arenaSize, unix.F_SEAL_GROW)
	whole, err3 := arena(arenaSize, sealed)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer func() { _, _, _ = small.Close(), loose.Close(), whole.Close() }()
	var errs []error
	for name, files := range map[string][]*os.File{
		"none": {}, "one": {whole}, "five": {whole, wake, wake, wake, wake}, "a device": {null, wake, wake}, "too small": {small, wake, wake}, "may shrink": {loose, wake, wake},
	} {
		r, err := l.enter("unix", ring())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		begun := time.Now()
		err = r.attachWith(files...)
		said := ""
		if err == nil {
			said, err = r.end()
		}
		l.n.measure(time.Since(begun), 0)
		if err != nil || said == "" && name != "five" { // which are not even received
			errs = append(errs, fmt.Errorf("%s: refused with %q, %w", name, said, err))
		}
		_ = r.Close()
	}
	l.serves()
	return errors.Join(errs...)
}

// wrongRequests has the ring to itself and asks for what lies outside of its slots.
func wrongRequests(l *lease) error {
	l.serves()
	r, err := l.enter("unix", ring())
	if err != nil {
		return err
	}
	defer closeQuietly(r)
	memory, err1 := arena(arenaSize, sealed)
	wake, err2 := event()
	waken, err3 := event()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer func() { _, _, _ = memory.Close(), wake.Close(), waken.Close() }()
	shared, err := unix.Mmap(int(memory.Fd()), 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(shared) }()
	if err := r.attachWith(memory, wake, waken); err != nil {
		return err
	}
	if kind, body, err := r.frame(); err != nil || kind != control.TypeAttached {
		return fmt.Errorf("attach: frame %d %q, %w", kind, body, err)
	}
	bad := []struct{ slot, size, room uint32 }{
		{1, 1, 1}, {math.MaxUint32, 1, 1}, {1 << 31, 0, 0}, {0, 4097, 1}, {0, math.MaxUint32, 1}, {0, 1, 4097}, {0, 1, math.MaxUint32}, {66, 4096, 4096},
	}
	var errs []error
	for i, b := range bad {
		reply := shared[repliesAt+i*entryBytes:]
		at := shared[requestsAt+i*entryBytes:]
		le := binary.LittleEndian
		le.PutUint64(at[8:], uint64(i+1))
		le.PutUint32(at[16:], b.slot)
		le.PutUint32(at[20:], b.size)
		le.PutUint32(at[24:], b.room)
		le.PutUint64(at[32:], 1<<63) // a deadline before time began
		le.PutUint64(at, uint64(i+1))
		begun := time.Now()
		l.n.await("a wrong request is answered", func() bool {
			_, _ = wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
			return le.Uint64(reply) == uint64(i+1)
		})
		l.n.measure(time.Since(begun), 0)
		if status := le.Uint32(reply[28:]); status != badRequest {
			errs = append(errs, fmt.Errorf("slot %d, %d bytes with room for %d: status %d", b.slot, b.size, b.room, status))
		}
	}
	for i := range shared {
		shared[i] = 0xff // and now all of it, while the worker polls
	}
	_, _ = wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	l.serves()
	return errors.Join(errs...)
}

// wrongKeys names memory that is not its own to libfabric, and addresses that nobody has.
func wrongKeys(l *lease) error {
	closeQuietly(l.connect("ofi")) // the endpoint is open
	var errs []error
	addresses := [][]byte{nil, {2}, bytes.Repeat([]byte{0xff}, 256), make([]byte, 256), {2, 0, 0, 1, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}}
	for i, address := range addresses {
		r, err := l.enter("tcp", overFabric())
		if err != nil {
			return err
		}
		_, _ = r.Write(control.Attach{Key: math.MaxUint64 - uint64(i), Base: math.MaxUint64, Address: address}.Encode(control.TypeAttach))
		kind, body, err := r.frame()
		if err != nil || kind != control.TypeRefused && kind != control.TypeAttached {
			errs = append(errs, fmt.Errorf("address %d: frame %d %q, %w", i, kind, body, err))
		}
		_ = r.Close()
	}
	c := l.connect("ofi")
	defer closeQuietly(c)
	if got, err := invoke(c, "echo right", long); err != nil || got != "echo right" {
		errs = append(errs, fmt.Errorf("a right caller: %q, %w", got, err))
	}
	return errors.Join(errs...)
}

// rubbish is what strangers send to a port.
var rubbish = [][]byte{
	bytes.Repeat([]byte{0xff}, 4096), make([]byte, 4096), []byte("GET / HTTP/1.1\r\n\r\n"), {0}, nil, bytes.Repeat([]byte{3, 0, 1, 0x80}, 1024),
}

// listening lists the TCP ports on which a user's processes listen.
func listening(uid uint32) ([]int, error) {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	var ports []int
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[3] != "0A" || fields[7] != strconv.Itoa(int(uid)) {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return nil, err
		}
		ports = append(ports, int(port))
	}
	return ports, nil
}
