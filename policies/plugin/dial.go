package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/policies"
)

// ErrAway is the answer to every question while the plugin's process does not run.
var ErrAway = errors.New("the policy's process does not run")

// Config says which program is the policy.
type Config struct {
	Path   string // of the program, absolute
	SHA256 []byte // of its content, 32 bytes; it is not started when it is another. Nil: not checked
	Log    *slog.Logger

	Started func() // hears of each start; nil: nobody
}

const (
	startTimeout = 10 * time.Second
	look         = 100 * time.Millisecond // for the end of the process
	shortestRest = 500 * time.Millisecond
	longestRest  = 30 * time.Second
)

// Plugin is a policy in a process of its own. Run keeps the process; questions are answered with ErrAway while there is none.
type Plugin struct {
	cfg Config

	mu     sync.Mutex
	client api.PolicyClient // nil while the process does not run
}

// New checks what can be checked without starting the program.
func New(cfg Config) (*Plugin, error) {
	if !filepath.IsAbs(cfg.Path) {
		return nil, fmt.Errorf("policy plugin %q: want an absolute path", cfg.Path)
	}
	if cfg.SHA256 != nil && len(cfg.SHA256) != sha256.Size {
		return nil, fmt.Errorf("policy plugin %s: a checksum of %d bytes, want a SHA-256 of %d", cfg.Path, len(cfg.SHA256), sha256.Size)
	}
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("policy plugin: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("policy plugin %s may be written by others than its owner (%s): chmod go-w it", cfg.Path, info.Mode())
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Plugin{cfg: cfg}, nil
}

// Sum returns a program's checksum as broker.toml has it.
func Sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Run starts the program, and again whenever it ends, after half a second and then twice as long each time up to half a minute, until
// ctx ends. A process that has run for longer than the longest rest begins anew.
func (p *Plugin) Run(ctx context.Context) error {
	rest := shortestRest
	for {
		began := time.Now()
		err := p.Once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > longestRest {
			rest = shortestRest
		}
		p.cfg.Log.Error("the policy's process is away; a built-in policy answers", "plugin", p.cfg.Path, "error", err, "again_in", rest)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		rest = min(2*rest, longestRest)
	}
}

// Once starts the program and waits for its end, or ends it with ctx.
func (p *Plugin) Once(ctx context.Context) error {
	client := plugin.NewClient(p.command())
	defer client.Kill()
	wire, err := client.Client()
	if err != nil {
		return fmt.Errorf("start policy plugin %s: %w", p.cfg.Path, err)
	}
	dispensed, err := wire.Dispense(serviceName)
	if err != nil {
		return fmt.Errorf("policy plugin %s: %w", p.cfg.Path, err)
	}
	p.set(dispensed.(api.PolicyClient))
	defer p.set(nil)
	p.cfg.Log.Info("the policy's process runs", "plugin", p.cfg.Path, "id", client.ID())
	if p.cfg.Started != nil {
		p.cfg.Started()
	}
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for !client.Exited() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return errors.New("it has ended by itself")
}

func (p *Plugin) command() *plugin.ClientConfig {
	cmd := exec.Command(p.cfg.Path)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}
	c := &plugin.ClientConfig{
		HandshakeConfig: handshake(), Plugins: plugin.PluginSet{serviceName: &service{}}, Cmd: cmd, SkipHostEnv: true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, StartTimeout: startTimeout,
		Logger: hclog.New(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off}), Stderr: &logged{log: p.cfg.Log},
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytes), grpc.MaxCallSendMsgSize(messageBytes))},
	}
	if p.cfg.SHA256 != nil {
		c.SecureConfig = &plugin.SecureConfig{Checksum: p.cfg.SHA256, Hash: sha256.New()}
	}
	return c
}

// logged passes on what the process writes to its standard error, at most a line's worth at once.
type logged struct{ log *slog.Logger }

func (l *logged) Write(text []byte) (int, error) {
	l.log.Info("the policy's process says", "text", string(text[:min(len(text), 1024)]))
	return len(text), nil
}

func (p *Plugin) set(client api.PolicyClient) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client = client
}

func (p *Plugin) get() (api.PolicyClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		return nil, ErrAway
	}
	return p.client, nil
}

// Harvest implements policies.Asked.
func (p *Plugin) Harvest(ctx context.Context, v policies.View) ([]policies.Offer, error) {
	client, err := p.get()
	if err != nil {
		return nil, err
	}
	answer, err := client.Harvest(ctx, wireView(v))
	if err != nil {
		return nil, asked(ctx, err)
	}
	return each(answer.GetOffers(), offerOf), nil
}

// Place implements policies.Asked.
func (p *Plugin) Place(ctx context.Context, r policies.Request, offers []policies.Offer) ([]string, error) {
	client, err := p.get()
	if err != nil {
		return nil, err
	}
	answer, err := client.Place(ctx, wireRequest(r, offers))
	if err != nil {
		return nil, asked(ctx, err)
	}
	return answer.GetNodes(), nil
}

// Evict implements policies.Asked.
func (p *Plugin) Evict(ctx context.Context, o policies.Overlap, executors []policies.Executor) ([]string, error) {
	client, err := p.get()
	if err != nil {
		return nil, err
	}
	answer, err := client.Evict(ctx, &api.EvictRequest{Node: o.Node, Needed: wireAmount(o.Needed), Executors: each(executors, wireExecutor)})
	if err != nil {
		return nil, asked(ctx, err)
	}
	return answer.GetIds(), nil
}

// asked says that the answer is late rather than how gRPC puts it; gRPC may find the deadline past before the context does.
func asked(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return fmt.Errorf("ask the policy's process: %w", err)
}
