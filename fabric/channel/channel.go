// Package channel protects the control connection between a client and an executor on another node: TLS 1.3 with a certificate that
// the executor makes for itself when it starts. Its SHA-256 travels in the executor's address, "host:port#fingerprint", from the
// executor through its agent and the broker to the lease's holder, so that the holder speaks to that executor or to nobody, and
// whoever listens in learns neither token, library, cookie nor memory key. The executor knows its client by the token.
//
// The C side of package fabric knows nothing of TLS: Carry gives it a socket whose bytes go through here. Nothing of an invocation
// does. Executors call New and Listen, clients Open and Carry.
package channel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAddress is returned for an address that does not say whom to expect.
var ErrAddress = errors.New("executor address without the fingerprint of its certificate")

// ErrImpostor is returned when somebody else listens at an executor's address.
var ErrImpostor = errors.New("what listens at the executor's address is not that executor")

var encoding = base64.RawURLEncoding

// Certificate is an executor's own.
type Certificate struct {
	pair        tls.Certificate
	fingerprint [sha256.Size]byte
}

// New makes a certificate; its key stays in this process's memory.
func New() (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the executor's key: %w", err)
	}
	// Nobody looks at names and dates: the fingerprint alone counts.
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the executor's certificate: %w", err)
	}
	return &Certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der)}, nil
}

// Listen protects the connections of a listener. The handshake is done by the first read.
func (c *Certificate) Listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.pair}, SessionTicketsDisabled: true})
}

// Address joins host:port and fingerprint.
func (c *Certificate) Address(hostPort string) string {
	return hostPort + "#" + encoding.EncodeToString(c.fingerprint[:])
}

// split takes an address apart.
func split(address string) (hostPort string, fingerprint []byte, err error) {
	hostPort, text, ok := strings.Cut(address, "#")
	if !ok {
		return "", nil, fmt.Errorf("%w: %.200q", ErrAddress, address)
	}
	fingerprint, err = encoding.DecodeString(text)
	if err != nil || len(fingerprint) != sha256.Size {
		return "", nil, fmt.Errorf("%w: %.200q", ErrAddress, address)
	}
	return hostPort, fingerprint, nil
}

// HostPort is an address without its fingerprint.
func HostPort(address string) string {
	hostPort, _, _ := strings.Cut(address, "#")
	return hostPort
}

// Open connects to the executor that an address names, and to nobody else.
func Open(ctx context.Context, address string) (*tls.Conn, error) {
	hostPort, fingerprint, err := split(address)
	if err != nil {
		return nil, err
	}
	// A peer that vanishes without a word is noticed within seconds.
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3},
		Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000) })
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", hostPort)
	if err != nil {
		return nil, fmt.Errorf("connect to executor at %s: %w", hostPort, err)
	}
	secure := tls.Client(conn, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // the certificate is compared with the one that the broker named
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := sha256.Sum256(s.PeerCertificates[0].Raw); subtle.ConstantTimeCompare(got[:], fingerprint) != 1 {
				return ErrImpostor
			}
			return nil
		},
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to executor at %s: %w", hostPort, err)
	}
	return secure, nil
}

// Carry returns a socket whose bytes go through a connection, until either end closes; then it closes the connection.
func Carry(secure net.Conn) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		_ = secure.Close()
		return nil, fmt.Errorf("carry the control connection: %w", err)
	}
	near := os.NewFile(uintptr(pair[0]), "control")
	go Join(near, secure)
	return os.NewFile(uintptr(pair[1]), "control"), nil
}

// Join copies between two connections until either ends, and closes both.
func Join(a, b io.ReadWriteCloser) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		_ = a.Close()
	}()
	_, _ = io.Copy(b, a)
	_ = b.Close()
	<-done
}
