package slurmctld

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Source says where a Reader asks.
type Source string

const (
	Auto     Source = "auto"     // REST when URL is set, else Scontrol
	REST     Source = "rest"     // slurmrestd
	Scontrol Source = "scontrol" // the text of scontrol and squeue; needs Slurm's commands and slurm.conf here
)

// Config is what a Reader needs. Only reading commands and GET requests are ever made.
type Config struct {
	Source    Source        // "" means Auto
	URL       string        // REST: http://host:port, https://host:port or unix:/path
	TokenFile string        // REST: a file with a Slurm JWT, read anew for each request; "" means local authentication
	User      string        // REST: X-SLURM-USER-NAME beside the token; "" means the token's own
	SlurmConf string        // Scontrol: SLURM_CONF of the commands; "" leaves the environment's
	Timeout   time.Duration // of one Read; 0 means 20 s
}

// Reader reads the controller. It is for one goroutine at a time.
type Reader struct {
	source  source
	timeout time.Duration
	last    *View
}

// source is one way to read everything. A nil View means that nothing changed since the last successful call.
type source interface {
	read(ctx context.Context) (*View, error)
}

// ErrConfig is wrapped by errors of New.
var ErrConfig = errors.New("slurm source")

// New makes a Reader. Nothing is asked before the first Read.
func New(cfg Config) (*Reader, error) {
	cfg = defaulted(cfg)
	r := &Reader{timeout: cfg.Timeout}
	switch cfg.Source {
	case REST:
		rest, err := newREST(cfg)
		if err != nil {
			return nil, err
		}
		r.source = rest
	case Scontrol:
		r.source = &commands{run: runner(cfg.SlurmConf), now: time.Now}
	default:
		return nil, fmt.Errorf("%w: %q is not one of rest, scontrol, auto", ErrConfig, cfg.Source)
	}
	return r, nil
}

func defaulted(cfg Config) Config {
	if cfg.Source == "" || cfg.Source == Auto {
		cfg.Source = Scontrol
		if cfg.URL != "" {
			cfg.Source = REST
		}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	return cfg
}

func newREST(cfg Config) (*rest, error) {
	transport := &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	base := strings.TrimSuffix(cfg.URL, "/")
	if path, ok := strings.CutPrefix(base, "unix:"); ok {
		transport.DialContext = dialUnix(path)
		base = "http://slurmrestd"
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%w: url %q is neither http://host:port nor unix:/path", ErrConfig, cfg.URL)
	}
	return &rest{
		base:   base,
		client: &http.Client{Transport: transport},
		token: func() (string, error) {
			if cfg.TokenFile == "" {
				return "", nil
			}
			b, err := os.ReadFile(cfg.TokenFile)
			if err != nil {
				return "", fmt.Errorf("read token: %w", err)
			}
			return strings.TrimPrefix(strings.TrimSpace(string(b)), "SLURM_JWT="), nil
		},
		user: cfg.User,
	}, nil
}

// Read returns the cluster as it is now. changed is false when it is as at the last Read, apart from AsOf. After an error the
// Reader starts over; the last View stays with whoever has it.
func (r *Reader) Read(ctx context.Context) (view *View, changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	view, err = r.source.read(ctx)
	if err != nil {
		return nil, false, err
	}
	if view == nil {
		return r.last, false, nil
	}
	settle(view)
	changed = r.last == nil || !reflect.DeepEqual(r.last.Nodes, view.Nodes) || !reflect.DeepEqual(r.last.Jobs, view.Jobs)
	r.last = view
	return view, changed, nil
}

// settle puts a View into its one form: sorted, so that equal clusters give equal Views whatever the source.
func settle(v *View) {
	slices.SortFunc(v.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Jobs, func(a, b Job) int { return int(int64(a.ID) - int64(b.ID)) })
	for i := range v.Nodes {
		slices.Sort(v.Nodes[i].Partitions)
	}
	for i := range v.Jobs {
		shares := v.Jobs[i].Nodes
		slices.SortFunc(shares, func(a, b Share) int { return strings.Compare(a.Node, b.Node) })
	}
}
