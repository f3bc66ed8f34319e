package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/identity/certs"
	"github.com/gleaner-hpc/gleaner/test/cluster"
)

// dialled is the Go SDK's client of a cluster.
func dialled(t *testing.T, c *cluster.Cluster) *client.Client {
	t.Helper()
	method, err := identity.NewMunge(c.MungeSocket())
	if err != nil {
		t.Skip(err)
	}
	secure, err := certs.Client(certs.Files{CA: filepath.Join(c.Dir, "etc", "ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	broker, err := client.Dial(client.Config{Broker: c.Broker(), Identity: method, TLS: secure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	return broker
}

// held takes a lease and waits for its executor, with its token.
func held(t *testing.T, broker *client.Client) *api.Executor {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	t.Cleanup(cancel)
	q := &api.AcquireRequest{Executors: 1, Ttl: durationpb.New(time.Minute), Function: &api.Function{Symbol: "f", Digest: make([]byte, 32), SizeBytes: 1, Name: "secrets"}}
	l, err := broker.Leases().Acquire(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = broker.Leases().Release(ctx, &api.ReleaseRequest{LeaseId: l.GetId()}) })
	var executor *api.Executor
	eventually(t, 40*time.Second, "the lease has an executor", func() bool {
		list, err := broker.Leases().List(ctx, &api.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, mine := range list.GetLeases() {
			if mine.GetId() == l.GetId() && len(mine.GetExecutors()) > 0 {
				executor = mine.GetExecutors()[0]
			}
		}
		return executor != nil
	})
	return executor
}

// secrets are the texts that nobody but their owners may read: keys as they stand in their files, and a lease's token.
func secrets(t *testing.T, c *cluster.Cluster, token []byte) map[string][]byte {
	t.Helper()
	found := map[string][]byte{
		"token": token, "token in hex": []byte(hex.EncodeToString(token)), "token in base64": []byte(base64.StdEncoding.EncodeToString(token)),
	}
	keys, err := filepath.Glob(filepath.Join(c.Dir, "etc", "*.key"))
	if err != nil || len(keys) < 3 { // munge's, the broker's, one of each agent
		t.Fatalf("keys %v, %v", keys, err)
	}
	for _, key := range keys {
		text, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Split(text, []byte("\n")); bytes.HasPrefix(text, []byte("-----BEGIN")) {
			text = lines[1]
		}
		found[filepath.Base(key)] = text[:min(len(text), 48)]
	}
	return found
}

// TestSecretsAreKept: no key and no token stands on a command line, or in a file of the cluster that other users can read.
func TestSecretsAreKept(t *testing.T) {
	c := theCluster(t, whole...)
	executor := held(t, dialled(t, c))
	if len(executor.GetToken()) == 0 || !strings.Contains(executor.GetAddress(), "#") {
		t.Fatalf("executor %s has no token, or its address %s no fingerprint", executor.GetId(), executor.GetAddress())
	}
	known := secrets(t, c, executor.GetToken())
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) < 10 {
		t.Fatalf("%d processes, %v", len(lines), err)
	}
	for _, file := range lines {
		text, _ := os.ReadFile(file) // it may have ended
		tells(t, file, text, known)
	}
	read := 0
	err = filepath.WalkDir(c.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		info, err := entry.Info()
		if err != nil || entry.IsDir() && info.Mode().Perm()&0o001 == 0 {
			return fs.SkipDir // others do not get in
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 && info.Size() < 16<<20 {
			text, _ := os.ReadFile(path)
			tells(t, path, text, known)
			read++
		}
		return nil
	})
	if err != nil || read < 10 {
		t.Errorf("%d files were read, %v", read, err)
	}
}

func tells(t *testing.T, where string, text []byte, known map[string][]byte) {
	t.Helper()
	for name, secret := range known {
		if bytes.Contains(text, secret) {
			t.Errorf("%s holds %s", where, name)
		}
	}
}

// rewritten changes the broker's file for the rest of the test and has it read again.
func rewritten(t *testing.T, c *cluster.Cluster, lines string) {
	t.Helper()
	path := filepath.Join(c.Dir, "etc", "broker.toml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text []byte) {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Error(err)
		}
		log, _ := os.ReadFile(c.Log("brokerd"))
		if err := c.Kill("brokerd", syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		eventually(t, 20*time.Second, "the broker has read its file again", func() bool {
			now, _ := os.ReadFile(c.Log("brokerd"))
			return bytes.Contains(now[min(len(log), len(now)):], []byte("rules read and audit log opened again"))
		})
	}
	reload(append(bytes.Clone(before), lines...))
	t.Cleanup(func() { reload(before) })
}

// trail reads the audit log.
func trail(t *testing.T, path string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var entries []map[string]any
	for line := range strings.Lines(string(text)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

// TestRulesAndAudit: a rule that is written while the cluster runs denies by its name, in the error, in explain and in the audit log,
// which a rotation beneath the broker does not harm.
func TestRulesAndAudit(t *testing.T) {
	c := theCluster(t, whole...)
	audit := filepath.Join(c.StateDir("brokerd"), "audit.jsonl")
	if info, err := os.Stat(audit); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("audit log: %v, %v", info, err)
	}
	rotated := audit + ".1"
	if err := os.Rename(audit, rotated); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(rotated) })
	input := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(input, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("denied", func(t *testing.T) {
		rewritten(t, c, "\n[[deny]]\nname = \"no-root-today\"\nusers = [\"root\"]\n")
		said, err := try(c, "gleaner", "invoke", function(t, "reverse"), input)
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 4 || !strings.Contains(said, "rule no-root-today of this site denies it") { //nolint:errorlint // of Run itself
			t.Errorf("got %v: %s", err, said)
		}
		if said = output(t, c, "gleaner", "explain"); !strings.Contains(said, "rule no-root-today") {
			t.Errorf("explain: %s", said)
		}
	})
	output(t, c, "gleaner", "invoke", function(t, "reverse"), input)
	events := ""
	for _, e := range trail(t, audit) {
		events += fmt.Sprintf("%v %v %v\n", e["event"], e["user"], e["reason"])
	}
	for _, want := range []string{"lease_denied root no-root-today", "lease_granted root", "executor_started root", "executor_ended root released", "lease_ended root released"} {
		if !strings.Contains(events, want) {
			t.Errorf("no %q in the audit log:\n%s", want, events)
		}
	}
}

// TestClientsOfAnotherCA: TLS is not optional, and what is wrong is said.
func TestClientsOfAnotherCA(t *testing.T) {
	c := theCluster(t, "brokerd")
	conf, err := os.ReadFile(c.ClientConf())
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(c.Dir, "etc", "ca.pem")
	other := filepath.Join(c.Dir, "etc", "agent-"+c.NodeNames()[0]+".pem") // a certificate, but nobody's signer
	for name, test := range map[string]struct{ from, to, want string }{
		"no TLS":       {fmt.Sprintf("ca_file = %q", ca), "", "TLS"},
		"another CA":   {ca, other, "not signed by tls.ca_file " + other},
		"another name": {fmt.Sprintf("ca_file = %q", ca), fmt.Sprintf("ca_file = %q\nserver_name = \"head\"", ca), "not for head"},
	} {
		file := filepath.Join(t.TempDir(), "client.toml")
		if err := os.WriteFile(file, bytes.Replace(conf, []byte(test.from), []byte(test.to), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
		cmd := c.Command(ctx, "gleaner", "nodes")
		cmd.Env = append(cmd.Env, "GLEANER_CONF="+file)
		said, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(said), test.want) {
			t.Errorf("%s: %v: %s, want …%s…", name, err, said, test.want)
		}
	}
}

// TestSlurmTokens: a site without munge knows callers by the tokens that slurmctld itself signs.
func TestSlurmTokens(t *testing.T) {
	if unavailable != nil {
		t.Skip(unavailable)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "jwt_hs256.key")
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Up(context.Background(), cluster.Options{
		Dir: folder() + "-jwt", Nodes: 1, Without: []string{"brokerd", "agentd", "launch", "gate", "hook", "slurmrestd"},
		SlurmConf: []string{"AuthAltTypes=auth/jwt", "AuthAltParameters=jwt_key=" + key},
	})
	if err != nil {
		if strings.Contains(err.Error(), "cannot find auth plugin for auth/jwt") {
			t.Skip("Slurm's auth/jwt is not installed (Debian: slurm-wlm-jwt-plugin)")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	address := brokerByTokens(t, c, dir, key)
	as := func(token string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
		defer cancel()
		cmd := c.Command(ctx, "gleaner", args...)
		conf := filepath.Join(dir, "client.toml")
		text := fmt.Sprintf("[broker]\naddress = %q\n[tls]\nca_file = %q\n[identity]\nmethod = \"jwt\"\n", address, filepath.Join(c.Dir, "etc", "ca.pem"))
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "GLEANER_CONF="+conf, "GLEANER_BROKER=", "SLURM_JWT="+token)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimPrefix(output(t, c, "scontrol", append([]string{"token"}, args...)...), "SLURM_JWT=")
	}
	if said, err := as(token("lifespan=60"), "leases"); err != nil {
		t.Errorf("root's token: %v: %s", err, said)
	}
	said, err := as(token("lifespan=60", "username=daemon"), "invoke", function(t, "reverse"))
	if err == nil || !strings.Contains(said, "uid 1 is root or a system user") {
		t.Errorf("daemon's token: %v: %s", err, said)
	}
	short := token("lifespan=1")
	eventually(t, 20*time.Second, "a token expires", func() bool {
		said, err = as(short, "leases")
		return err != nil && strings.Contains(said, "expired on")
	}, func() string { return said })
	good := token("lifespan=60")
	for name, bad := range map[string]string{"cut": good[:len(good)-4], "none": "", "another's": "eyJhbGciOiJub25lIn0.eyJzdW4iOiJyb290IiwiZXhwIjo5OTk5OTk5OTk5fQ."} {
		if said, err := as(bad, "leases"); err == nil || !strings.Contains(said, "denied") {
			t.Errorf("%s: %v: %s", name, err, said)
		}
	}
}

// brokerByTokens runs a broker of its own that knows callers by Slurm's tokens, and returns its address.
func brokerByTokens(t *testing.T, c *cluster.Cluster, dir, key string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	etc := func(name string) string { return filepath.Join(c.Dir, "etc", name) }
	conf := filepath.Join(dir, "broker.toml")
	text := fmt.Sprintf("[broker]\nlisten = %q\nstate_dir = %q\nmetrics = \"\"\n[tls]\ncert_file = %q\nkey_file = %q\n[identity]\nmethod = \"jwt\"\njwt_key_file = %q\n",
		address, filepath.Join(dir, "state"), etc("broker.pem"), etc("broker.key"), key)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := c.Command(context.Background(), "gleaner-brokerd", "--config", conf)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-exited })
	eventually(t, 20*time.Second, "the broker listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, func() string { return strconv.Quote(said.String()) })
	return address
}
