package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs certificates into a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = key
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der, 0o644)
	return a
}

func (a *authority) write(name, kind string, der []byte, mode os.FileMode) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue signs a certificate for a name, which is also a host's, that ends after life.
func (a *authority) issue(name string, life time.Duration) Files {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return Files{
		CA: filepath.Join(a.dir, "ca.pem"), Cert: a.write(name+".pem", "CERTIFICATE", der, 0o644),
		Key: a.write(name+".key", "EC PRIVATE KEY", private, 0o600),
	}
}

// serve runs a server and returns its address and where it notes the names of its last caller.
func serve(t *testing.T, f Files, report func(error)) (string, *[]string) {
	t.Helper()
	creds, err := Server(f, report)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	spy := func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		names = Names(ctx)
		return next(ctx, q)
	}
	s := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(spy))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return l.Addr().String(), &names
}

func call(t *testing.T, address string, f Files) error {
	t.Helper()
	creds, err := Client(f)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func TestHandshakes(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	address, names := serve(t, ours.issue("broker", time.Hour), nil)
	ca := Files{CA: filepath.Join(ours.dir, "ca.pem"), ServerName: "broker"}
	with := func(f Files, change func(*Files)) Files { change(&f); return f }
	agent := with(ours.issue("n1", time.Hour), func(f *Files) { f.ServerName = "broker" })
	stranger := with(theirs.issue("n1", time.Hour), func(f *Files) { f.CA, f.ServerName = ca.CA, "broker" })
	for name, test := range map[string]struct {
		files Files
		names []string
		want  string
	}{
		"no certificate":         {ca, nil, ""},
		"a node's certificate":   {agent, []string{"n1", "n1"}, ""},
		"another signer's":       {stranger, nil, ""}, // which is not even shown
		"the address is no name": {Files{CA: ca.CA}, nil, "the broker's certificate is for broker, not for 127.0.0.1"},
		"wrong name":             {with(ca, func(f *Files) { f.ServerName = "head" }), nil, "certificate is for broker, not for head"},
		"wrong CA":               {Files{CA: filepath.Join(theirs.dir, "ca.pem"), ServerName: "broker"}, nil, "not signed by tls.ca_file"},
		"no CA file":             {Files{CA: "/nonexistent/ca.pem"}, nil, "ca_file: open /nonexistent/ca.pem"},
		"CA without a PEM":       {Files{CA: agent.Key}, nil, "no PEM certificate"},
		"expired":                {with(ours.issue("late", -time.Minute), func(f *Files) { f.ServerName = "broker" }), nil, "late.pem expired on"},
	} {
		t.Run(name, func(t *testing.T) {
			*names = nil
			err := call(t, address, test.files)
			if test.want == "" && (err != nil || !slices.Equal(*names, test.names)) {
				t.Fatalf("got %v, caller %q, want %q", err, *names, test.names)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want …%s…", err, test.want)
			}
		})
	}
}

func TestExpiredServer(t *testing.T) {
	a := newAuthority(t, "ours")
	f := a.issue("broker", time.Hour)
	var reported []error
	address, _ := serve(t, f, func(err error) { reported = append(reported, err) })
	ca := Files{CA: f.CA, ServerName: "broker"}
	if err := call(t, address, ca); err != nil {
		t.Fatal(err)
	}
	a.issue("broker", -time.Minute) // in the same files
	if err := call(t, address, ca); err != nil || len(reported) != 1 || !strings.Contains(reported[0].Error(), "broker.pem expired on") {
		t.Errorf("got %v, reported %v; want the old certificate to go on and one report", err, reported)
	}
	next := a.issue("head", time.Hour)
	for from, to := range map[string]string{next.Cert: f.Cert, next.Key: f.Key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(t, address, ca); err == nil || !strings.Contains(err.Error(), "certificate is for head") {
		t.Errorf("got %v, want the new certificate to be in use", err)
	}
}

func TestExplain(t *testing.T) {
	a := newAuthority(t, "ours")
	f := a.issue("broker", -time.Minute)
	text, err := os.ReadFile(f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	err = explain(x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired}, "ca.pem")
	if !strings.Contains(err.Error(), "renew tls.cert_file on the broker") {
		t.Errorf("got %v", err)
	}
}

func TestNoTLSThere(t *testing.T) {
	a := newAuthority(t, "ours")
	f := a.issue("broker", time.Hour)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	err = call(t, l.Addr().String(), Files{CA: f.CA, ServerName: "broker"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "speaks no TLS") {
		t.Errorf("got %v", err)
	}
}

func TestKeyOfEverybody(t *testing.T) {
	f := newAuthority(t, "ours").issue("broker", time.Hour)
	if err := os.Chmod(f.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Server(f, nil); err == nil || !strings.Contains(err.Error(), "can be read by every user") {
		t.Errorf("got %v", err)
	}
	if err := Private("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
