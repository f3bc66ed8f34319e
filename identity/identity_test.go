package identity

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// munged starts a munged of its own, with a key and a socket of its own, and returns the socket.
func munged(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("munged")
	if err != nil {
		if program = "/usr/sbin/munged"; !exists(program) {
			t.Skip("munged is not installed")
		}
	}
	dir, err := os.MkdirTemp("", "gleaner-identity-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	key := filepath.Join(dir, "munge.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 1024)), 0o400); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "munge.socket")
	cmd := exec.Command(program, "--foreground", "--force", "--key-file="+key, "--socket="+socket,
		"--pid-file="+filepath.Join(dir, "pid"), "--log-file="+filepath.Join(dir, "log"), "--seed-file="+filepath.Join(dir, "seed"), "--num-threads=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-exited:
			t.Skipf("munged does not run here: %s", cmd.ProcessState)
		default:
		}
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatal("munged does not listen")
		}
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func loaded(t *testing.T, socket string) *Munge {
	t.Helper()
	m, err := NewMunge(socket)
	if err != nil {
		t.Skip(err)
	}
	return m
}

func TestMunge(t *testing.T) {
	m := loaded(t, munged(t))
	credential, err := m.Encode("for this call")
	if err != nil {
		t.Fatal(err)
	}
	caller, payload, err := m.Decode(credential)
	want := Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if err != nil || caller != want || payload != "for this call" {
		t.Errorf("got %+v, %q, %v", caller, payload, err)
	}
	for name, test := range map[string]struct{ credential, text string }{
		"replayed": {credential, "Replayed"},
		"forged":   {"MUNGE:AwQFAAA" + credential[len("MUNGE:AwQFAAA"):len(credential)-9] + "AAAAAAAA:", "nvalid"},
		"garbage":  {"what", "armor prefix"},
		"empty":    {"", "redential"},
	} {
		if _, _, err := m.Decode(test.credential); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		} else if name != "empty" && !errors.Is(err, ErrCredential) {
			t.Errorf("%s: %v is not ErrCredential", name, err)
		}
	}
}

func TestNoMunged(t *testing.T) {
	m := loaded(t, filepath.Join(t.TempDir(), "none"))
	_, err := m.Encode("")
	if err == nil || errors.Is(err, ErrCredential) || !strings.Contains(err.Error(), "is munged running") || !strings.Contains(err.Error(), "munge_socket") {
		t.Errorf("got %v", err)
	}
}

// fixed sends one metadata value.
type fixed string

func (f fixed) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{header: string(f)}, nil
}
func (fixed) RequireTransportSecurity() bool { return false }

// serve returns a caller of a service behind the interceptors, which answers with who the server saw.
func serve(t *testing.T, m Method) func(options ...grpc.DialOption) (Caller, error) {
	t.Helper()
	var seen Caller
	spy := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		seen, _ = From(ctx)
		return next(ctx, req)
	}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(Unary(m), spy), grpc.StreamInterceptor(Stream(m)))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return func(options ...grpc.DialOption) (Caller, error) {
		seen = Caller{}
		conn, err := grpc.NewClient("passthrough:///x", append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		client := grpc_health_v1.NewHealthClient(conn)
		if _, err = client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			return seen, err
		}
		stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return seen, err
	}
}

func TestRPC(t *testing.T) {
	m := loaded(t, munged(t))
	call := serve(t, m)
	got, err := call(grpc.WithPerRPCCredentials(PerRPC{m}))
	if err != nil || got.UID != uint32(os.Geteuid()) {
		t.Errorf("got %+v, %v", got, err)
	}
	credential := func(payload string) grpc.DialOption {
		c, err := m.Encode(payload)
		if err != nil {
			t.Fatal(err)
		}
		return grpc.WithPerRPCCredentials(fixed("munge " + c))
	}
	uid := uint32(0)
	for name, test := range map[string]struct {
		option grpc.DialOption
		text   string
	}{
		"no credential":      {grpc.WithUserAgent("x"), "carries 0 credentials"},
		"method none":        {grpc.WithPerRPCCredentials(PerRPC{None{As: &uid}}), `of method "none"`},
		"another call's":     {credential("gleaner/1 /gleaner.v1.Leases/Release"), "it was made for"},
		"another program's":  {credential(""), "it was made for"},
		"replayed at Watch":  {credential("gleaner/1 /grpc.health.v1.Health/Check"), "eplayed"},
		"garbage":            {grpc.WithPerRPCCredentials(fixed("munge MUNGE:abc:")), "decode credential"},
		"too long":           {grpc.WithPerRPCCredentials(fixed("munge " + strings.Repeat("x", maxCredential+1))), "at most 16384"},
		"cannot be produced": {grpc.WithPerRPCCredentials(PerRPC{loaded(t, "/nonexistent/munge")}), "is munged running"},
	} {
		if _, err := call(test.option); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBrokenMunged(t *testing.T) {
	call := serve(t, loaded(t, filepath.Join(t.TempDir(), "none")))
	if _, err := call(grpc.WithPerRPCCredentials(fixed("munge MUNGE:abc:"))); status.Code(err) != codes.Aborted {
		t.Errorf("got %v, want ABORTED: it is not the caller's fault", err)
	}
}

func TestNone(t *testing.T) {
	uid := uint32(4711)
	call := serve(t, None{})
	if got, err := call(grpc.WithPerRPCCredentials(PerRPC{None{As: &uid}})); err != nil || got != (Caller{4711, 4711}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := call(grpc.WithPerRPCCredentials(fixed("none root"))); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{"none 0", "none", "munge x", "", "none 4294967296", "none -1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(header, value))
		ctx, err := authenticate(ctx, None{}, "/x")
		if _, ok := From(orEmpty(ctx)); ok != (err == nil) {
			t.Errorf("%q: caller %t, error %v", value, ok, err)
		}
	})
}

func orEmpty(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
