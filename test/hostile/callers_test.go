package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gleaner-hpc/gleaner/api/launcher"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric"
	"github.com/gleaner-hpc/gleaner/fabric/channel"
	"github.com/gleaner-hpc/gleaner/fabric/control"
)

// callers are attacks from outside of the sandbox, and from one tenant on another.
func callers(beside *neighbour) []attack {
	return []attack{
		{name: "forged and foreign tokens", act: func(l *lease) error { return tokens(l, beside.lease) }},
		{name: "another tenant, from his sandbox", act: func(l *lease) error {
			got, err := l.call("strangers "+beside.control(), long)
			if err != nil || got != "nobody" {
				return fmt.Errorf("found %q, %w", got, err)
			}
			return nil
		}},
		{name: "another tenant, as a user of the host", act: func(l *lease) error { return visit(l, beside.lease) }},
		{name: "10,000 half-open connections", act: halfOpen},
		{name: "frames of 2 GiB", act: giants},
		{name: "frames out of order", act: disorder},
		{name: "wrong descriptors for the ring", act: wrongDescriptors},
		{name: "wrong sizes and slots in the ring", act: wrongRequests},
		{name: "wrong addresses and keys for the fabric", act: wrongKeys},
		{name: "noise on the fabric's own port", act: noise},
	}
}

// tokens shows all kinds of wrong tokens; each is refused by its name.
func tokens(l, other *lease) error {
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	with := func(change func(*token.Claims)) []byte {
		c := l.claims()
		change(&c)
		return l.sign(c, l.n.key)
	}
	good := l.sign(l.claims(), l.n.key)
	bent := append([]byte(nil), good...)
	bent[9] ^= 1
	var errs []error
	for _, bad := range []struct {
		name  string
		token []byte
		code  fabric.RefusalCode
	}{
		{"signed by somebody else", l.sign(l.claims(), stranger), fabric.RefusedForged},
		{"changed", bent, fabric.RefusedForged},
		{"the neighbour's", other.sign(other.claims(), l.n.key), fabric.RefusedForeign},
		{"of another lease", with(func(c *token.Claims) { c.Lease++ }), fabric.RefusedForeign},
		{"for another library", with(func(c *token.Claims) { c.Digest[0] ^= 1 }), fabric.RefusedForeign},
		{"expired", with(func(c *token.Claims) { c.Expiry = time.Now().Add(-time.Second) }), fabric.RefusedExpired},
		{"empty", nil, fabric.RefusedMalformed},
		{"cut short", good[:len(good)-1], fabric.RefusedMalformed},
		{"too long", append(good, 0), fabric.RefusedMalformed},
		{"of nothing but zeros", make([]byte, 300), fabric.RefusedMalformed},
	} {
		for _, carrier := range []string{"ring", "ofi"} {
			begun := time.Now()
			_, err := l.dial(bad.token, carrier)
			l.n.measure(time.Since(begun), 0)
			if !errors.Is(err, &fabric.RefusedError{Code: bad.code}) {
				errs = append(errs, fmt.Errorf("a token %s, %s: %w; want refusal %d", bad.name, carrier, err, bad.code))
			}
		}
	}
	l.serves()
	if _, err := l.dial(with(func(c *token.Claims) { c.Epoch = 1 }), "ring"); !errors.Is(err, &fabric.RefusedError{Code: fabric.RefusedEpoch}) {
		errs = append(errs, fmt.Errorf("a token of an older epoch: %w", err))
	}
	return errors.Join(errs...)
}

// visit is another user of the host who goes for the neighbour's processes, memory and folder, and for the node's sockets.
func visit(l, other *lease) error {
	plan, err := json.Marshal(trespass{Node: l.n.run(), Folder: l.n.run("executors", other.id), Control: other.control(), PID: other.pid})
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The test binary lies where other users cannot go.
	program := l.n.run("stranger")
	text, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Dir, cmd.Env = "/", []string{"GLEANER_STRANGER=" + string(plan)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: l.uid, Gid: l.uid}}
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		return fmt.Errorf("a stranger could: %s, %w", out, err)
	}
	return nil
}

// trespass tells a stranger where to go.
type trespass struct {
	Node, Folder, Control string
	PID                   int // of the neighbour's executor
}

// stranger runs as another user and names what it could do.
func stranger() string {
	var t trespass
	if err := json.Unmarshal([]byte(os.Getenv("GLEANER_STRANGER")), &t); err != nil {
		return err.Error()
	}
	var could []string
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", t.PID, t.PID))
	for _, pid := range append(strings.Fields(string(children)), fmt.Sprint(t.PID)) {
		for _, name := range []string{"mem", "environ", "maps", "fd", "root/tmp/secret", "cwd/secret", "map_files"} {
			path := "/proc/" + pid + "/" + name
			if f, err := os.Open(path); err == nil {
				_ = f.Close()
				could = append(could, "open "+path)
			}
		}
		var number int
		_, _ = fmt.Sscan(pid, &number)
		if unix.PtraceAttach(number) == nil {
			could = append(could, "trace "+pid)
		}
		if unix.Kill(number, 0) == nil {
			could = append(could, "signal "+pid)
		}
	}
	if _, err := os.ReadDir(t.Folder); err == nil {
		could = append(could, "list "+t.Folder)
	}
	for _, path := range []string{t.Control, t.Node + "/launch.sock"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			could = append(could, "talk to "+path)
		}
	}
	return strings.Join(could, ", ")
}

// halfOpen holds connections open that say nothing, or half of a frame; who has a token gets in.
func halfOpen(l *lease) error {
	var limit unix.Rlimit
	count := 10000
	if n, err := strconv.Atoi(os.Getenv("GLEANER_HALF_OPEN")); err == nil {
		count = n // an emulated machine takes a minute for so many
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	count = min(count, int(limit.Cur)-200)
	conns := make([]net.Conn, 0, count)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range count {
		network, address := "tcp", channel.HostPort(l.ready.Address)
		if i%2 == 1 {
			network, address = "unix", l.control()
		}
		c, err := net.DialTimeout(network, address, patience)
		if errors.Is(err, syscall.EAGAIN) { // the socket's queue is full
			continue
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, c)
		if i%3 == 1 {
			_, _ = c.Write([]byte{1, 0})
		}
	}
	l.n.t.Logf("%d connections", len(conns))
	begun := time.Now()
	l.serves()
	l.n.measure(time.Since(begun), 0)
	c := l.connect("ofi")
	defer closeQuietly(c)
	if got, err := invoke(c, "echo", long); err != nil || got != "echo" {
		return fmt.Errorf("through the fabric: %q, %w", got, err)
	}
	return nil
}

// raw is a connection of a caller with a protocol of his own.
type raw struct {
	net.Conn
	accept []byte // the body of ACCEPT
}

// enter connects, and shows a good token if asked to.
func (l *lease) enter(network string, hello *control.Hello) (*raw, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := l.reach(ctx, network)
	if err != nil {
		return nil, err
	}
	r := &raw{Conn: conn}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if hello == nil {
		return r, nil
	}
	hello.Digest, hello.Token, hello.Symbol = [32]byte(l.assign.Digest), l.sign(l.claims(), l.n.key), "run"
	if _, err = conn.Write(hello.Encode()); err == nil {
		var kind uint16
		if kind, r.accept, err = r.frame(); err == nil && kind != control.TypeAccept {
			err = fmt.Errorf("a frame of type %d for a HELLO: %q", kind, r.accept)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return r, nil
}

func (r *raw) frame() (uint16, []byte, error) {
	head := make([]byte, control.HeadBytes)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	body := make([]byte, min(binary.LittleEndian.Uint32(head), control.MaxBody))
	_, err := io.ReadFull(r, body)
	return binary.LittleEndian.Uint16(head[4:]), body, err
}

// end reads until the executor closes, or refuses by name, and returns the text of the refusal.
func (r *raw) end() (string, error) {
	for {
		kind, body, err := r.frame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("the executor neither answers nor closes: %w", err)
		case kind == control.TypeRefused && len(body) > 10:
			return string(body[10:]), nil
		}
	}
}

func ring() *control.Hello {
	return &control.Hello{Carriers: 1 << control.CarrierRing, BufferBytes: 4096, Slots: 1}
}

func overFabric() *control.Hello {
	return &control.Hello{Carriers: 1 << control.CarrierOFI, BufferBytes: 4096, Slots: 1, Provider: "tcp;ofi_rxm"}
}

// head is a frame's head that promises a body.
func head(kind uint16, size uint32) []byte {
	b := make([]byte, control.HeadBytes)
	binary.LittleEndian.PutUint32(b, size)
	binary.LittleEndian.PutUint16(b[4:], kind)
	return b
}

const twoGiB = 2 << 30

// giants promises more than anybody takes, before and after the token; each connection is closed, and nothing is set aside for it.
func giants(l *lease) error {
	var errs []error
	for _, network := range []string{"tcp", "unix"} {
		for _, kind := range []uint16{control.TypeHello, control.TypeCode, control.TypeAttach, 77} {
			for _, hello := range []*control.Hello{nil, ring(), overFabric()} {
				if network == "tcp" && hello != nil && hello.Carriers == 1<<control.CarrierRing {
					continue
				}
				errs = append(errs, l.throw(network, hello, head(kind, twoGiB)))
			}
		}
	}
	for path, sent := range map[string][]byte{
		l.n.run("launch.sock"):                        bytes.Repeat([]byte{'x'}, 2*launcher.MaxRequest), // and no end of the line
		l.n.run("agent", "sockets", "executors.sock"): {0, 0, 0, 0x80},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write(sent)
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			errs = append(errs, fmt.Errorf("%s takes whatever is sent: %w", path, err))
		}
		_ = conn.Close()
	}
	l.serves()
	return errors.Join(errs...)
}

// throw sends bytes and waits for the end of the connection.
func (l *lease) throw(network string, hello *control.Hello, bytes ...[]byte) error {
	r, err := l.enter(network, hello)
	if err != nil {
		return fmt.Errorf("%s, %+v: %w", network, hello, err)
	}
	defer closeQuietly(r)
	begun := time.Now()
	for _, b := range bytes {
		_, _ = r.Write(b)
	}
	_, err = r.end()
	l.n.measure(time.Since(begun), 0)
	return err
}

// disorder sends sound frames when they are not due.
func disorder(l *lease) error {
	attach := control.Attach{Address: make([]byte, 16)}.Encode(control.TypeAttach)
	long := head(control.TypeAttach, control.MaxBody)
	errs := []error{
		l.throw("tcp", nil, attach),
		l.throw("tcp", nil, head(control.TypeCode, 4), []byte("code")),
		l.throw("unix", nil, head(0, 0)),
		l.throw("unix", ring(), ring().Encode()),
		l.throw("unix", ring(), head(control.TypeAccept, 0)),
		l.throw("unix", ring(), long, make([]byte, control.MaxBody)),
		l.throw("tcp", overFabric(), head(control.TypeCode, uint32(len(l.library))), make([]byte, len(l.library))),
		l.throw("tcp", overFabric(), head(control.TypeCode, uint32(len(l.library)+1))),
	}
	l.serves()
	return errors.Join(errs...)
}

// noise connects to where libfabric listens, which asks nobody for a token.
func noise(l *lease) error {
	c := l.connect("ofi")
	defer closeQuietly(c)
	ports, err := listening(l.uid)
	if err != nil {
		return err
	}
	noises := 0
	for _, port := range ports {
		if strings.HasSuffix(channel.HostPort(l.ready.Address), fmt.Sprintf(":%d", port)) {
			continue
		}
		for i := range 50 {
			conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), patience)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write(rubbish[i%len(rubbish)])
			noises++
		}
	}
	if noises == 0 {
		return errors.New("the fabric listens nowhere")
	}
	if got, err := invoke(c, "echo through", long); err != nil || got != "echo through" {
		return fmt.Errorf("an earlier caller: %q, %w", got, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	at := fabric.Endpoint{Address: l.ready.Address, Token: l.sign(l.claims(), l.n.key)}
	later, err := fabric.Dial(ctx, at, fabric.Code{Symbol: "run", Library: l.library}, fabric.Options{Carrier: "ofi"})
	if err != nil {
		return fmt.Errorf("a later caller: %w", err)
	}
	defer closeQuietly(later)
	if got, err := invoke(later, "echo after", long); err != nil || got != "echo after" {
		return fmt.Errorf("a later caller: %q, %w", got, err)
	}
	return nil
}
