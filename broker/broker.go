// Package broker is the cluster's side of Gleaner: it admits leases, decides which node starts which executor, tells clients where
// their executors are, and writes down what was gained and what it cost. It speaks the contracts of package api, as a gRPC server,
// to clients and agents; it dials nobody.
//
// One goroutine, Run, owns all state. RPCs hand it steps; the steps of one batch are committed to the store together, and only
// then does anything leave the broker: answers, starts, events, acknowledgements. What a client or agent has been told is
// therefore on disk. The broker is never on the path of an invocation or of an eviction.
//
// Tokens. A token opens one executor, whose id is never used again, and ends with it; so its expiry bounds nothing but clocks gone
// wrong. Each Watch and each List by the holder signs fresh ones, valid for TokenLife.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"os/user"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/broker/audit"
	"github.com/gleaner-hpc/gleaner/broker/rules"
	"github.com/gleaner-hpc/gleaner/broker/store"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/report"
	"github.com/gleaner-hpc/gleaner/slurmplugin/slurmctld"
)

// TokenLife is how long a token is valid: longer than nearly every job, so that a client whose connection broke may use it again.
const TokenLife = 7 * 24 * time.Hour

// SlurmReader reads slurmctld; *slurmctld.Reader is one. A view that is not changed is the one of the last call.
type SlurmReader interface {
	Read(ctx context.Context) (view *slurmctld.View, changed bool, err error)
}

// Recorder keeps what the utilization report is made of; *report.Store is one.
type Recorder interface {
	AddInterval(context.Context, report.Interval) error
	AddExecutor(context.Context, report.Executor) error
	AddClaim(context.Context, report.Claim) error
	AddTasks(context.Context, report.Tasks) error
	AddDrain(context.Context, report.Drain) error
}

// Config is what a broker is made of.
type Config struct {
	Store    *store.Store
	Policy   policies.Policy                                                   // nil: policies.Idle
	Slurm    SlurmReader                                                       // nil: the agents' ledgers alone decide
	Recorder Recorder                                                          // nil: no report
	Report   func(ctx context.Context, since, until time.Time) ([]byte, error) // nil: Cluster.Report is unimplemented
	Log      *slog.Logger                                                      // nil: discarded
	Metrics  prometheus.Registerer                                             // nil: none
	Version  string

	Watch   time.Duration // how often agents look what jobs do not use and how they fare, for policies that want to know; 0: never
	Sharing Sharing

	MaxExecutors     int           // per lease; 0: 4096
	MaxLeasesPerUser int           // 0: 64
	MaxTTL           time.Duration // 0: 1 h
	NodeTimeout      time.Duration // 0: 30 s
	MaxRest          time.Duration // of a node after evictions; 0: 30 s
	History          time.Duration // how long ended leases are kept; 0: 90 days
	Poll             time.Duration // of slurmctld; 0: 15 s
	JobPatience      time.Duration // how long a lease of a Slurm job that slurmctld has not named waits to be admitted; 0: 10 s

	Operators []uint32 // uids that see everybody's leases; root always does
	Agents    []uint32 // uids that may speak as agents
	AllowRoot bool     // may uids below FirstUID lease?
	FirstUID  uint32   // of ordinary users; 0: 1000

	Rules            *rules.Set // nil: none; see Broker.Reload
	Audit            *audit.Log // nil: none; Run's alone from then on
	AuditContinue    bool       // lease also while the audit log cannot be written
	NodeCertificates bool       // agents must have shown a certificate of their node's name

	UserName func(uid uint32) string   // nil: the system's user database
	Groups   func(uid uint32) []string // nil: the system's group database
	Now      func() time.Time          // nil: time.Now
	Tick     <-chan time.Time          // nil: four times a second
}

func (c *Config) setDefaults() {
	setDefault(&c.Policy, policies.Policy(policies.Idle{}))
	setDefault(&c.Log, slog.New(slog.DiscardHandler))
	setDefault(&c.MaxExecutors, 4096)
	setDefault(&c.MaxLeasesPerUser, 64)
	setDefault(&c.MaxTTL, time.Hour)
	setDefault(&c.NodeTimeout, 30*time.Second)
	setDefault(&c.History, 90*24*time.Hour)
	setDefault(&c.Poll, 15*time.Second)
	setDefault(&c.JobPatience, 10*time.Second)
	setDefault(&c.FirstUID, 1000)
	if c.UserName == nil {
		c.UserName = userName
	}
	if c.Groups == nil {
		c.Groups = groupNames
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupNames(uid uint32) []string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	ids, _ := u.GroupIds()
	var names []string
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			names = append(names, g.Name)
		}
	}
	return names
}

// Broker serves the services of package api. Run must be running for its RPCs to answer.
type Broker struct {
	cfg     Config
	metrics *metrics
	steps   chan *step
	views   chan *observed
	look    chan struct{} // asks for a look at slurmctld before its time
	stopped chan struct{} // closed when Run ends: no step is taken any more
	rules   atomic.Pointer[rules.Set]
	rec     *recording
	state   *state // Run's alone

	api.UnimplementedLeasesServer
	api.UnimplementedClusterServer
	api.UnimplementedAgentsServer
}

// New loads the saved state.
func New(cfg Config) (*Broker, error) {
	if cfg.Store == nil {
		return nil, errors.New("create broker: no store given")
	}
	cfg.setDefaults()
	b := &Broker{
		cfg: cfg, metrics: newMetrics(cfg.Metrics, cfg.Version),
		steps: make(chan *step, 1024), views: make(chan *observed), look: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	b.rec = newRecording(cfg, b.post)
	var err error
	b.state, err = newState(cfg, b.metrics, b.rec)
	if err != nil {
		return nil, err
	}
	b.state.backoff.Longest = cfg.MaxRest
	b.rules.Store(cfg.Rules)
	return b, nil
}

// Serve registers the broker's services.
func (b *Broker) Serve(s grpc.ServiceRegistrar) {
	api.RegisterLeasesServer(s, b)
	api.RegisterClusterServer(s, b)
	api.RegisterAgentsServer(s, b)
}

// ServerOptions are what a gRPC server of the broker needs: callers known by method, TLS unless nil, dead peers noticed in about 15 s.
func ServerOptions(method identity.Method, tls credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(tls), // nil means none
		grpc.ChainUnaryInterceptor(identity.Unary(method)),
		grpc.ChainStreamInterceptor(identity.Stream(method)),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(4 << 20),
	}
}
