// Command gleaner-brokerd is the broker: it hands out leases on what Slurm leaves over. It reads /etc/gleaner/broker.toml, serves
// gRPC, and ends in order at SIGTERM or SIGINT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gleaner-hpc/gleaner/broker"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/report"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// version is set by the linker.
var version = "dev"

// stopTimeout bounds how long calls in progress may take when the broker stops.
const stopTimeout = 3 * time.Second

func main() {
	file := flag.String("config", cmpOr(os.Getenv("GLEANER_CONF"), "/etc/gleaner/broker.toml"), "configuration `file`")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println("gleaner-brokerd", version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *file); err != nil {
		fmt.Fprintln(os.Stderr, "gleaner-brokerd:", err)
		os.Exit(1)
	}
}

func cmpOr(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

func run(ctx context.Context, file string) (err error) {
	c, err := config.LoadBroker(file)
	if err != nil {
		return err
	}
	log := logger(c.Broker.LogLevel)
	method, err := identity.New(c.Identity.Method, identity.Options{MungeSocket: c.Identity.MungeSocket, KeyFile: c.Identity.JWTKeyFile})
	if err != nil {
		return err
	}
	if c.Identity.Method == "none" {
		log.Warn("identity.method is none: every caller is believed; this is for tests alone")
	}
	state, err := store.Open(filepath.Join(c.Broker.StateDir, "broker.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	records, err := report.Open(filepath.Join(c.Broker.StateDir, "report.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	site, err := newSite(c, log)
	if err != nil {
		return err
	}
	defer site.close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	slurm, err := slurmctld.New(slurmctld.Config{
		Source: slurmctld.Source(c.Slurm.Source), URL: c.Slurm.URL, TokenFile: c.Slurm.TokenFile,
	})
	if err != nil {
		return err
	}
	policy, runPolicy, err := newPolicy(&c.Policy, registry, log)
	if err != nil {
		return err
	}
	b, err := broker.New(broker.Config{
		Policy: policy, Watch: watch(&c.Policy), Sharing: sharing(&c.Share),
		Store: state, Slurm: slurm, Recorder: records, Report: reporter(records), Log: log,
		Metrics: registry, Version: version,
		MaxExecutors: c.Limits.MaxExecutors, MaxLeasesPerUser: c.Limits.MaxLeasesPerUser, MaxTTL: time.Duration(c.Limits.MaxTTL),
		NodeTimeout: time.Duration(c.Limits.NodeTimeout), MaxRest: time.Duration(c.Limits.MaxRest), History: time.Duration(c.Limits.History), Poll: time.Duration(c.Slurm.Poll),
		Operators: uids(log, "broker.operators", c.Broker.Operators), Agents: uids(log, "identity.agents", c.Identity.Agents),
		AllowRoot: c.Identity.AllowRoot, FirstUID: site.firstUID, Rules: site.rules, Audit: site.audit,
		AuditContinue: c.Audit.OnFailure == "continue", NodeCertificates: c.TLS.AgentCertificates == "required",
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Broker.Listen)
	if err != nil {
		return fmt.Errorf("listen for clients and agents (broker.listen): %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.Run(ctx) })
	group.Go(func() error { return serve(ctx, listener, b, broker.ServerOptions(method, site.tls)) })
	group.Go(func() error { return reload(ctx, file, b, log) })
	group.Go(func() error { return pruneReport(ctx, log, records, time.Duration(c.Limits.History)) })
	if runPolicy != nil {
		group.Go(func() error { return runPolicy(ctx) })
	}
	if c.Broker.Metrics != "" {
		group.Go(func() error { return serveMetrics(ctx, c.Broker.Metrics, registry) })
	}
	log.Info("broker ready", "listen", listener.Addr().String(), "version", version)
	err = group.Wait()
	log.Info("broker stopped")
	return err
}

func logger(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
}

// uids looks users up by name, and takes numbers as they are. One that this host does not have is no error: the defaults name users that a site may lack.
func uids(log *slog.Logger, key string, names []string) []uint32 {
	var ids []uint32
	for _, name := range names {
		if id, err := strconv.ParseUint(name, 10, 32); err == nil {
			ids = append(ids, uint32(id))
			continue
		}
		u, err := user.Lookup(name)
		if err != nil {
			log.Info("user is not known here and gets no rights", "key", key, "user", name)
			continue
		}
		id, err := strconv.ParseUint(u.Uid, 10, 32)
		if err == nil {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}

func reporter(records *report.Store) func(context.Context, time.Time, time.Time) ([]byte, error) {
	return func(ctx context.Context, since, until time.Time) ([]byte, error) {
		r, err := records.Build(ctx, since, until)
		if err != nil {
			return nil, err
		}
		return r.JSON()
	}
}

func pruneReport(ctx context.Context, log *slog.Logger, records *report.Store, history time.Duration) error {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := records.Prune(ctx, time.Now().Add(-history)); err != nil && ctx.Err() == nil {
			log.Error("cannot prune the report's records", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// serve answers until ctx ends, and then lets calls end.
func serve(ctx context.Context, listener net.Listener, b *broker.Broker, options []grpc.ServerOption) error {
	server := grpc.NewServer(options...)
	b.Serve(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	force := time.AfterFunc(stopTimeout, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	return nil
}

func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics (broker.metrics): %w", err)
	}
	return nil
}
