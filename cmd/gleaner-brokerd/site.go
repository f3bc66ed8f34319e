package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/gleaner-hpc/gleaner/broker"
	"github.com/gleaner-hpc/gleaner/broker/audit"
	"github.com/gleaner-hpc/gleaner/broker/rules"
	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/identity/certs"
)

// site is what the site says of who may come in.
type site struct {
	tls      credentials.TransportCredentials // nil: none
	rules    *rules.Set
	audit    *audit.Log // nil: none
	firstUID uint32
}

func newSite(c *config.Broker, log *slog.Logger) (*site, error) {
	s := &site{firstUID: c.Identity.FirstUID}
	var err error
	if s.rules, err = rules.Compile(c); err != nil {
		return nil, err
	}
	if s.tls, err = protection(c, log); err != nil {
		return nil, err
	}
	if s.firstUID == 0 {
		s.firstUID = ordinary("/etc/login.defs")
	}
	path := c.Audit.File
	if path == "" {
		path = filepath.Join(c.Broker.StateDir, "audit.jsonl")
	}
	if path != "none" {
		s.audit, err = audit.Open(path)
	}
	return s, err
}

func (s *site) close() {
	if s.audit != nil {
		_ = s.audit.Close()
	}
}

// protection is what [tls] asks for.
func protection(c *config.Broker, log *slog.Logger) (credentials.TransportCredentials, error) {
	if c.TLS.CertFile == "" {
		if host, _, _ := net.SplitHostPort(c.Broker.Listen); !net.ParseIP(host).IsLoopback() {
			log.Warn("clients and agents connect without TLS: executors' tokens can be overheard; see [tls] in broker.toml")
		}
		return nil, nil
	}
	secure, err := certs.Server(certs.Files{CA: c.TLS.CAFile, Cert: c.TLS.CertFile, Key: c.TLS.KeyFile}, func(err error) {
		log.Error("changed TLS files cannot be used; the former ones go on", "error", err)
	})
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return secure, nil
}

// ordinary is the first uid that is no system user's, UID_MIN in login.defs(5).
func ordinary(file string) uint32 {
	const usual = 1000
	f, err := os.Open(file)
	if err != nil {
		return usual
	}
	defer func() { _ = f.Close() }()
	return uidMin(f, usual)
}

func uidMin(in io.Reader, otherwise uint32) uint32 {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == "UID_MIN" {
			if uid, err := strconv.ParseUint(fields[1], 10, 32); err == nil && uid > 0 {
				return uint32(uid)
			}
		}
	}
	return otherwise
}

// reload takes rules from the file, and opens the audit log again, at each SIGHUP. A file with errors changes nothing.
func reload(ctx context.Context, file string, b *broker.Broker, log *slog.Logger) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		}
		c, err := config.LoadBroker(file)
		if err != nil {
			log.Error("the changed configuration has errors; the former rules go on", "error", err)
			continue
		}
		set, err := rules.Compile(c)
		if err == nil {
			err = b.Reload(set)
		}
		if err != nil {
			log.Error("cannot take the changed configuration", "error", err)
			continue
		}
		log.Info("rules read and audit log opened again", "allow", len(c.Allow), "deny", len(c.Deny), "limit", len(c.Limit))
	}
}
