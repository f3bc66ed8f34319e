package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"

	"github.com/gleaner-hpc/gleaner/agent"
	"github.com/gleaner-hpc/gleaner/agent/account"
	"github.com/gleaner-hpc/gleaner/agent/confine"
	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/evict"
	"github.com/gleaner-hpc/gleaner/agent/images"
	"github.com/gleaner-hpc/gleaner/agent/jobs"
	"github.com/gleaner-hpc/gleaner/agent/launch"
	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/agent/machine"
	"github.com/gleaner-hpc/gleaner/agent/session"
	"github.com/gleaner-hpc/gleaner/agent/slack"
	"github.com/gleaner-hpc/gleaner/agent/slack/gpu"
	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/identity/certs"
)

// run builds the agent from its file and runs it.
func run(ctx context.Context, file, node string) error {
	c, err := config.LoadAgent(file, node)
	if err != nil {
		return err
	}
	log, err := logger(c)
	if err != nil {
		return err
	}
	method, err := identity.New(c.Identity.Method, identity.Options{MungeSocket: c.Broker.MungeSocket, TokenFile: c.Identity.TokenFile})
	if err != nil {
		return err
	}
	secure, err := protection(c.TLS)
	if err != nil {
		return err
	}
	cfg, err := describe(c)
	if err != nil {
		return err
	}
	launcher := launch.Dial(c.Launcher.Socket)
	defer launcher.Close()
	cfg.Launcher, cfg.LauncherUp, cfg.Exited = launcher, launcher.Up(), launcher.Exited()
	if c.Images.Socket != "" {
		cfg.Images = images.Client{Path: c.Images.Socket}
	}
	cfg.Jobs = jobs.Scan{FS: os.DirFS("/"), Node: c.Node.Name}
	sampler := slack.New(slack.Config{FS: os.DirFS("/"), Node: c.Node.Name, Counters: slack.OpenCounter, GPUs: gpus(c.Node.GPUs, log)})
	defer sampler.Close()
	cfg.Sampler = sampler
	cfg.Session = func(events chan<- session.Event) agent.Runner {
		return session.New(session.Config{
			Address: c.Broker.Address, Credentials: identity.PerRPC{Method: method}, TLS: secure, Events: events, Log: log,
		})
	}
	cfg.Grants = agent.Grants{Binds: c.Sandbox.Binds, Network: c.Sandbox.Network}
	cfg.Groups = (&account.Names{}).Groups
	findings := confine.Look(os.DirFS("/"), c.Sandbox.Waive)
	if cfg.Objection = confine.Objection(findings); cfg.Objection != "" {
		log.Error("nothing is lent", "reason", cfg.Objection)
	}
	for _, f := range findings {
		if !f.Given && f.Waived {
			log.Warn("sandboxes go without what agent.toml waives", "guard", f.Name, "reason", f.Why)
		}
	}
	cfg.Metrics, cfg.Log = agent.NewMetrics(version), log
	a, err := agent.New(*cfg)
	if err != nil {
		return err
	}
	log.Info("agent starts", "cores", cfg.Ledger.Cores, "memory", config.FormatMemory(cfg.Ledger.Memory), "affinity", cfg.CPUs != nil)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.Run(ctx) })
	if c.Agent.Metrics != "" {
		group.Go(func() error { return serveMetrics(ctx, c.Agent.Metrics, cfg.Metrics) })
	}
	return group.Wait()
}

// protection is how the broker is known; nil without TLS.
func protection(c config.ClientTLS) (credentials.TransportCredentials, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	secure, err := certs.Client(certs.Files{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile, ServerName: c.ServerName})
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return secure, nil
}

func logger(c *config.Agent) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Agent.LogLevel)); err != nil {
		return nil, fmt.Errorf("agent.log_level: %w", err)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", c.Node.Name), nil
}

// describe joins the file with a look at the machine.
func describe(c *config.Agent) (*agent.Config, error) {
	m, err := machine.Read(os.DirFS("/"), allowed())
	if err != nil {
		return nil, err
	}
	cfg := &agent.Config{
		Node: c.Node.Name, Version: version, Devices: c.Node.GPUs,
		Socket: c.Agent.Socket, RunDir: c.Agent.RunDir, StateDir: c.Agent.StateDir,
		Provider: c.Fabric.Provider, ListenHost: c.Executor.Listen,
		OrphanTimeout: time.Duration(c.Evict.OrphanTimeout), WarnTimeout: time.Duration(c.Evict.WarnTimeout),
		Lending:        slack.Rule{Window: time.Duration(c.Lend.Window), Settle: time.Duration(c.Lend.Settle), Margin: uint64(c.Lend.Margin)},
		Evict:          evict.Policy{MaxGrace: time.Duration(c.Evict.MaxGrace)},
		ThreadsPerCore: 1, MemoryByCores: c.Node.JobMemory == "share",
		Parking: agent.Parking{Count: c.Executor.Parked, Memory: uint64(c.Executor.ParkedMemory)},
	}
	cores := c.Node.CPUs
	whole := cores == 0 || cores == m.CPUs || cores == len(m.Cores)
	if c.Node.Affinity == "yes" || c.Node.Affinity == "auto" && whole {
		cfg.CPUs, cfg.ThreadsPerCore = m.Cores, max(1, m.CPUs/len(m.Cores))
		if whole {
			cores = len(m.Cores)
		}
	} else if cores == 0 {
		cores = len(m.Cores)
	}
	memory := uint64(c.Node.Memory)
	if memory == 0 {
		memory = m.Memory
	}
	cfg.Ledger = ledger.Config{
		Cores: cores, Memory: memory, GPUs: len(c.Node.GPUs),
		ReserveCores: c.Node.ReserveCPUs, ReserveMemory: min(uint64(c.Node.ReserveMemory), memory),
	}
	if cfg.ListenHost == "" {
		if cfg.ListenHost, err = facing(c.Broker.Address); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// gpus reads the GPUs of agent.toml through the driver's library; nil where there are none.
func gpus(devices []string, log *slog.Logger) func() ([]slack.GPU, error) {
	if len(devices) == 0 {
		return nil
	}
	reader, err := gpu.Open(nvml.New(), devices)
	if err != nil {
		log.Warn("GPUs cannot be watched; allocated ones are never lent", "error", err)
		return nil
	}
	return reader.Read
}

// allowed is the set of CPUs that this process may use; empty when it cannot be known.
func allowed() coreset.Set {
	var mask unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mask); err != nil {
		return nil
	}
	var s coreset.Set
	for n := range len(mask) * 64 {
		if mask.IsSet(n) {
			s = s.Or(coreset.Of(n))
		}
	}
	return s
}

// facing returns the address from which this node reaches the broker. No packet is sent.
func facing(broker string) (string, error) {
	conn, err := net.Dial("udp", broker)
	if err != nil {
		return "", fmt.Errorf("find the address that reaches broker %s: %w; set executor.listen", broker, err)
	}
	defer func() { _ = conn.Close() }()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}

func serveMetrics(ctx context.Context, address string, m *agent.Metrics) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w; change agent.metrics, or set it to \"\" for none", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
