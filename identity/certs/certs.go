// Package certs protects the connections between machines by TLS: it reads certificates and keys from PEM files, reads them again
// when they change, and says in an operator's words what is wrong with one. Who may call what is decided elsewhere; a verified
// client certificate shows as Names. The broker serves with Server; agents and clients dial with Client.
package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Files names the PEM files of one side. Keys must not be readable by others.
type Files struct {
	CA         string // signers that the other side's certificate must have; "" for a server: no client certificates
	Cert, Key  string // this side's; "" for a client: it shows none
	ServerName string // name that the server's certificate must have; "": the host that is dialled
}

// Server returns what a gRPC server of these files needs. A client may show a certificate; one that CA has not signed ends the
// connection. When changed files cannot be used the old ones go on, and report, when given, hears why, once for each change.
func Server(f Files, report func(error)) (credentials.TransportCredentials, error) {
	s := &server{files: f, report: report}
	var err error
	s.seen = f.signature()
	if s.config, err = f.server(); err != nil {
		return nil, err
	}
	return s, nil
}

// Client returns what a gRPC client needs. The files are read at each handshake; that they can be is checked at once.
func Client(f Files) (credentials.TransportCredentials, error) {
	if _, err := f.client(); err != nil {
		return nil, err
	}
	return &client{files: f}, nil
}

// Names returns the names in the verified certificate of the other side of an RPC; none when it has shown none.
func Names(ctx context.Context) []string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil
	}
	leaf := info.State.VerifiedChains[0][0]
	return append([]string{leaf.Subject.CommonName}, leaf.DNSNames...)
}

func (f Files) server() (*tls.Config, error) {
	pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if f.CA != "" {
		if c.ClientCAs, err = pool(f.CA); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return c, nil
}

func (f Files) client() (*tls.Config, error) {
	roots, err := pool(f.CA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: f.ServerName}
	if f.Cert == "" {
		return c, nil
	}
	pair, err := f.pair()
	if err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// pair reads this side's certificate and key, and refuses what the other side would.
func (f Files) pair() (tls.Certificate, error) {
	if err := Private(f.Key); err != nil {
		return tls.Certificate{}, fmt.Errorf("key_file: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return pair, fmt.Errorf("cert_file %s with key_file %s: %w", f.Cert, f.Key, err)
	}
	if leaf := pair.Leaf; time.Now().After(leaf.NotAfter) {
		return pair, fmt.Errorf("cert_file %s expired on %s: renew it", f.Cert, leaf.NotAfter.Format(time.RFC3339))
	}
	return pair, nil
}

// Private says whether a file that holds a secret can be read by others than its owner and group.
func Private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s can be read by every user (mode %04o): chmod 0600 it", path, info.Mode().Perm())
	}
	return nil
}

func pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file %s: no PEM certificate in it", path)
	}
	return roots, nil
}

// signature changes when one of the files does.
func (f Files) signature() string {
	var b strings.Builder
	for _, path := range []string{f.CA, f.Cert, f.Key} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%d %d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return b.String()
}

type server struct {
	files  Files
	report func(error)

	mu     sync.Mutex
	seen   string
	config *tls.Config
}

func (s *server) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.files.signature()
	if now == s.seen {
		return s.config
	}
	s.seen = now
	config, err := s.files.server()
	switch {
	case err == nil:
		s.config = config
	case s.report != nil:
		s.report(err)
	}
	return s.config
}

func (s *server) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(s.current()).ServerHandshake(conn)
}

func (s *server) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a server's certificates do not dial")
}

func (s *server) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (s *server) Clone() credentials.TransportCredentials { return s }
func (s *server) OverrideServerName(string) error         { return nil }

type client struct{ files Files }

func (c *client) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := c.files.client()
	if err != nil {
		return nil, nil, err
	}
	secure, info, err := credentials.NewTLS(config).ClientHandshake(ctx, cmp.Or(c.files.ServerName, authority), conn)
	if err != nil {
		return nil, nil, explain(err, c.files.CA)
	}
	return secure, info, nil
}

func (c *client) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a client's certificates do not serve")
}

func (c *client) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (c *client) Clone() credentials.TransportCredentials { return &client{c.files} }
func (c *client) OverrideServerName(name string) error    { c.files.ServerName = name; return nil }

// explain says what a client can do about a handshake that failed.
func explain(err error, ca string) error {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var stranger x509.UnknownAuthorityError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		leaf := invalid.Cert
		return fmt.Errorf("the broker's certificate is valid from %s to %s alone: renew tls.cert_file on the broker, or set this host's clock: %w",
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339), err)
	case errors.As(err, &name):
		return fmt.Errorf("the broker's certificate is for %s, not for %s: write one of these in broker.address, or in tls.server_name: %w",
			strings.Join(namesOf(name.Certificate), ", "), name.Host, err)
	case errors.As(err, &stranger):
		return fmt.Errorf("the broker's certificate is not signed by tls.ca_file %s: is it this cluster's?: %w", ca, err)
	case errors.As(err, &plain):
		return fmt.Errorf("what listens there speaks no TLS: is the port the broker's, and has its broker.toml a [tls]?: %w", err)
	}
	return err
}

func namesOf(c *x509.Certificate) []string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{"no name at all"}
	}
	return names
}
