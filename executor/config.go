package executor

import (
	"errors"
	"log/slog"
	"path/filepath"
	"time"
)

// Config of an executor.
type Config struct {
	Agent       string        // Unix socket of the node's agent, required
	ID          string        // of this sandbox, required
	Worker      string        // path of the worker binary, required
	SelfDir     string        // where the Unix control socket is made, default /run/gleaner/self
	LoadTimeout time.Duration // for the library's constructors, default 10 s
	Log         *slog.Logger  // required
}

const (
	defaultSelfDir     = "/run/gleaner/self"
	defaultLoadTimeout = 10 * time.Second
	defaultOrphan      = 2 * time.Minute
	defaultCodeBytes   = 256 << 20
)

func (c Config) withDefaults() Config {
	if c.SelfDir == "" {
		c.SelfDir = defaultSelfDir
	}
	if c.LoadTimeout == 0 {
		c.LoadTimeout = defaultLoadTimeout
	}
	return c
}

func (c Config) validate() error {
	if c.Agent == "" || c.ID == "" || c.Worker == "" || c.Log == nil {
		return errors.New("executor: agent socket, id, worker and log are required")
	}
	return nil
}

func (c Config) socket() string { return filepath.Join(c.SelfDir, "control.sock") }
