package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/identity"
)

// Config says how to reach the broker and executors.
type Config struct {
	Broker   string          // host:port, required
	Identity identity.Method // who calls, required
	// TLS protects the connection to the broker; nil means none. See package identity/certs.
	TLS credentials.TransportCredentials
	// Connect opens the data path to an executor; nil means package fabric.
	Connect Connector
	// Carrier and Provider are handed to package fabric; "" lets it choose.
	Carrier  string
	Provider string
}

// Client talks to one broker. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	leases  api.LeasesClient
	cluster api.ClusterClient
	connect Connector
}

// Dial prepares a client. It does not wait for the broker; the first call does.
func Dial(c Config) (*Client, error) {
	if c.Broker == "" {
		return nil, errors.New("no broker address")
	}
	if c.Identity == nil {
		return nil, errors.New("no identity")
	}
	if c.TLS == nil {
		c.TLS = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(c.Broker,
		grpc.WithTransportCredentials(c.TLS),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: brokerSilence, Timeout: brokerAnswer}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: brokerAnswer}),
		grpc.WithPerRPCCredentials(identity.PerRPC{Method: c.Identity}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", c.Broker, err)
	}
	connect := c.Connect
	if connect == nil {
		connect = fabricConnector(c.Carrier, c.Provider)
	}
	return &Client{conn, api.NewLeasesClient(conn), api.NewClusterClient(conn), connect}, nil
}

// Close closes the connection to the broker. Leases that were not released end when their ttl is over.
func (c *Client) Close() error { return c.conn.Close() }

// Leases is the broker's service as it is, for what this package does not wrap. Describe explains its errors.
func (c *Client) Leases() api.LeasesClient { return c.leases }

// Cluster is the broker's service as it is.
func (c *Client) Cluster() api.ClusterClient { return c.cluster }

// Request is what a lease asks for.
type Request struct {
	Function  *Function     // required
	Executors int           // wanted at the same time; 0 means 1
	Cores     int           // per executor; 0 means 1
	Memory    uint64        // bytes per executor; 0 means 256 MiB
	GPUs      int           // per executor
	TTL       time.Duration // how long the lease outlives its holder; 0 means 30 s
	Length    time.Duration // about how long one call takes, for the site's policy; 0: not known
	Job       uint32        // Slurm job that the lease ends with; 0 means none
	Account   string        // for the report; "" means the job's
	Buffer    uint64        // bytes of the largest input or result; 0 means 1 MiB
	Binds     []Bind        // files of the caller's that the function sees
	Network   bool          // the function may open sockets, where nodes allow that
	Image     string        // in which the function runs: a name, a reference or an archive's absolute path; "": the node's own libraries
	Tasks     TaskOptions
}

// Bind shows a folder or file of the caller's to the function. Nodes allow this below the folders that their site names, and without
// symbolic links on the way.
type Bind struct {
	Source   string // on the nodes
	Target   string // as the function sees it, at least two components; "" means Source
	Writable bool
}

// TaskOptions hold for every task of a lease.
type TaskOptions struct {
	Spin             time.Duration // both sides poll for so long before they sleep; 0 means 50 µs; or SpinAlways, SpinNever
	Timeout          time.Duration // of one run of the function; 0 means none
	Retries          int           // further runs after the function itself failed; 0 means none
	ExecutorFailures int           // runs that may be lost to executors that failed (evictions do not count); 0 means 5
	Room             uint64        // bytes of the largest result; 0 means the lease's buffer. Many at a time need 64 KiB or less
	Depth            int           // tasks at an executor at a time, one running and the rest ready behind it; 0 means 2
}

// Acquire obtains a lease. It returns as soon as the broker has admitted it; executors arrive later. Errors: ErrUnreachable, ErrNotNow,
// ErrDenied, ErrInvalid, ErrNoCapacity.
func (c *Client) Acquire(ctx context.Context, r Request) (*Lease, error) {
	return c.acquire(ctx, r, nil)
}

func (c *Client) acquire(ctx context.Context, r Request, o Observer) (*Lease, error) {
	if r.Function == nil {
		return nil, errors.New("acquire a lease: no function")
	}
	granted, err := c.leases.Acquire(ctx, r.proto())
	if err != nil {
		err = Describe("acquire a lease", err)
		var broker *BrokerError
		if errors.As(err, &broker) && errors.Is(broker.Kind, ErrEnded) {
			broker.Kind = ErrNoCapacity // what FAILED_PRECONDITION means before there is a lease
		}
		return nil, err
	}
	return newLease(c.leases, c.connect, r.Function, r.Tasks, granted, o), nil
}

// Observer hears of a lease's executors, from one goroutine.
type Observer interface {
	// Ready announces an executor, and again each time it has a fresh token.
	Ready(e *api.Executor)
	// Gone takes it back.
	Gone(id string, reason api.EndReason, detail string)
}

// Hold obtains a lease whose executors others use: it keeps the lease alive, tells o of each executor and connects to none. The
// methods of the Lease that run tasks must not be called.
func (c *Client) Hold(ctx context.Context, r Request, o Observer) (*Lease, error) {
	return c.acquire(ctx, r, o)
}

func (r Request) proto() *api.AcquireRequest {
	p := &api.AcquireRequest{
		Executors: uint32(max(r.Executors, 1)), Cores: uint32(r.Cores), MemoryBytes: r.Memory, Gpus: uint32(r.GPUs),
		Function: &api.Function{Symbol: r.Function.Symbol, Digest: r.Function.Digest[:],
			SizeBytes: uint64(len(r.Function.Library)), Name: r.Function.Name},
		JobId: r.Job, Account: r.Account, BufferBytes: r.Buffer, Image: r.Image,
	}
	p.Network = r.Network
	for _, b := range r.Binds {
		p.Binds = append(p.Binds, &api.Bind{Source: b.Source, Target: cmp.Or(b.Target, b.Source), Writable: b.Writable})
	}
	if r.Length > 0 {
		p.Length = durationpb.New(r.Length)
	}
	if r.TTL > 0 {
		p.Ttl = durationpb.New(r.TTL)
	}
	return p
}

// Attach takes over a lease that the caller already holds, such as one whose holder crashed, with the function that it was
// acquired for.
func (c *Client) Attach(ctx context.Context, id uint64, f *Function, o TaskOptions) (*Lease, error) {
	held, err := c.leases.Renew(ctx, &api.RenewRequest{LeaseId: id})
	if err != nil {
		return nil, Describe(fmt.Sprintf("attach to lease %d", id), err)
	}
	if string(held.GetRequest().GetFunction().GetDigest()) != string(f.Digest[:]) {
		return nil, fmt.Errorf("attach to lease %d: it was acquired for another function, %s", id, held.GetRequest().GetFunction().GetName())
	}
	return newLease(c.leases, c.connect, f, o, held, nil), nil
}
