package invoke

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/api/jsonframe"
	"github.com/gleaner-hpc/gleaner/api/token"
	"github.com/gleaner-hpc/gleaner/fabric"
)

const (
	bufferBytes  = 1 << 20
	startTimeout = 20 * time.Second
	executorID   = "1-1"
)

// local is an executor that runs as a process of ours.
type local struct {
	process  *exec.Cmd
	agent    net.Conn
	dir      string
	key      ed25519.PrivateKey
	code     fabric.Code
	endpoint fabric.Endpoint
}

// startLocal starts an executor and assigns it a lease.
func startLocal(ctx context.Context, cfg *Config) (*local, error) {
	library, err := os.ReadFile(cfg.Function)
	if err != nil {
		return nil, fmt.Errorf("read function: %w", err)
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gleaner-bench-")
	if err != nil {
		return nil, err
	}
	l := &local{dir: dir, key: private, code: fabric.Code{Symbol: "echo", Library: library, Digest: sha256.Sum256(library)}}
	if err := l.launch(ctx, cfg, public); err != nil {
		l.stop()
		return nil, fmt.Errorf("start executor: %w", err)
	}
	return l, nil
}

func (l *local) launch(ctx context.Context, cfg *Config, public ed25519.PublicKey) error {
	listener, err := net.Listen("unix", filepath.Join(l.dir, "agent.sock"))
	if err != nil {
		return err
	}
	defer listener.Close()
	l.process = exec.CommandContext(ctx, cfg.Executor, "--agent", listener.Addr().String(), "--id", executorID, "--self", l.dir)
	l.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := onProcessor(true, l.process.Start); err != nil {
		return err
	}
	deadline := time.Now().Add(startTimeout)
	_ = listener.(*net.UnixListener).SetDeadline(deadline)
	if l.agent, err = listener.Accept(); err != nil {
		return err
	}
	_ = l.agent.SetDeadline(deadline)
	assign := wire.Assign{
		Executor: executorID, Lease: 1, Epoch: 1, PublicKey: public, Symbol: l.code.Symbol, Digest: l.code.Digest[:], CodeBytes: uint64(len(l.code.Library)),
		BufferBytes: bufferBytes, Cores: 1, ListenHost: cfg.Host, Provider: cfg.Provider, OrphanTimeout: time.Minute,
	}
	var said wire.FromExecutor
	if err := jsonframe.Read(l.agent, &said); err != nil {
		return err
	}
	if err := jsonframe.Write(l.agent, wire.FromAgent{Assign: &assign}); err != nil {
		return err
	}
	said = wire.FromExecutor{}
	if err := jsonframe.Read(l.agent, &said); err != nil || said.Ready == nil {
		return fmt.Errorf("it does not become ready: %+v: %w", said, err)
	}
	signed, err := token.Sign(l.key, token.Claims{Lease: 1, Epoch: 1, UID: uint32(os.Getuid()), Expiry: time.Now().Add(time.Hour), Digest: l.code.Digest, Executor: executorID})
	l.endpoint = fabric.Endpoint{Address: said.Ready.Address, Local: said.Ready.Local, Token: signed}
	return err
}

func (l *local) stop() {
	if l.process != nil && l.process.Process != nil {
		_ = l.process.Process.Kill()
		_ = l.process.Wait()
	}
	if l.agent != nil {
		_ = l.agent.Close()
	}
	_ = os.RemoveAll(l.dir)
}

// passport writes what the C caller shows: the token, and behind it the library's digest.
func (l *local) passport() (string, error) {
	path := filepath.Join(l.dir, "token")
	return path, os.WriteFile(path, append(append([]byte(nil), l.endpoint.Token...), l.code.Digest[:]...), 0o600)
}
