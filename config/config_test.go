package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gleaner.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The samples show the defaults: reading one gives what an empty file gives.
func TestSamplesShowDefaults(t *testing.T) {
	t.Setenv("GLEANER_BROKER", "broker:7461")
	got, err := LoadAgent("../contrib/config/agent.toml", "n1")
	if err != nil {
		t.Fatal(err)
	}
	want, err := LoadAgent(write(t, ""), "n1")
	if err != nil {
		t.Fatal(err)
	}
	want.Node.GPUs = []string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("agent.toml differs from the defaults (-default +sample):\n%s", diff)
	}
	gotBroker, err := LoadBroker("../contrib/config/broker.toml")
	if err != nil {
		t.Fatal(err)
	}
	wantBroker, err := LoadBroker(write(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantBroker, gotBroker); diff != "" {
		t.Errorf("broker.toml differs from the defaults (-default +sample):\n%s", diff)
	}
}

func TestFindings(t *testing.T) {
	t.Setenv("GLEANER_BROKER", "")
	tests := map[string]struct {
		text string
		line int
		want string
	}{
		"unknown key":      {"[node]\ncpus = 4\n\ncors = 5\n[broker]\naddress = 'b:1'\n", 4, "unknown key node.cors"},
		"unknown table":    {"[broker]\naddress = 'b:1'\n[nodes]\n", 3, "unknown key nodes"},
		"syntax":           {"[broker]\naddress = 'b:1'\n[node]\ncpus = = 4\n", 4, "expected"},
		"type":             {"[node]\ncpus = 'four'\n[broker]\naddress = 'b:1'\n", 2, "incompatible types"},
		"range":            {"[broker]\naddress = 'b:1'\n[node]\ncpus = -1\n", 4, "node.cpus: -1 is out of range"},
		"memory":           {"[broker]\naddress = 'b:1'\n[node]\nmemory = '12X'\n", 4, "memory size"},
		"duration":         {"[broker]\naddress = 'b:1'\n[evict]\nwarn_timeout = 'soon'\n", 4, "duration"},
		"missing":          {"[node]\ncpus = 4\n", 0, "broker.address: missing"},
		"address":          {"[broker]\naddress = 'no port'\n", 2, "broker.address"},
		"relative path":    {"[broker]\naddress = 'b:1'\n[agent]\nsocket = 'agent.sock'\n", 4, "want an absolute path"},
		"broker's policy":  {"[policy]\nname = 'greedy'\n", 2, "policy.name"},
		"policy's sight":   {"[policy]\nname = 'pressure'\nblind = 'yes'\n", 3, "policy.blind: \"yes\"; want refuse or lend"},
		"broker's url":     {"[slurm]\nsource = 'rest'\nurl = 'slurm'\n", 3, "slurm.url"},
		"rule's name":      {"[[deny]]\nname = 'a b'\n", 2, "deny[0].name"},
		"name used twice":  {"[[deny]]\nname = 'x'\n[[limit]]\nname = 'x'\nper = 'user'\ncores = 1\n", 4, "names another rule already"},
		"name of our own":  {"[[allow]]\nname = 'allow_list'\n", 2, "reason of Gleaner's own"},
		"rule's digest":    {"[[allow]]\nname = 'x'\n[[allow]]\nname = 'y'\ndigests = ['abc']\n", 5, "no SHA-256 in hex"},
		"rule's nodes":     {"[[allow]]\nname = 'x'\nnodes = 'n 1'\n", 3, "no list of nodes"},
		"rule's key":       {"[[allow]]\nname = 'x'\nuser = ['a']\n", 3, "unknown key allow.user"},
		"second rule's":    {"[[allow]]\nname = 'x'\n[[allow]]\nname = 'y'\nuser = ['a']\n", 5, "unknown key allow.user"},
		"table's end":      {"[broker]\naddress = 'b:1'\n[node\n", 3, "to end table name"},
		"limit of nothing": {"[[limit]]\nname = 'x'\nper = 'user'\n", 1, "limits nothing"},
		"limit per what":   {"[[limit]]\nname = 'x'\ncores = 1\nper = 'node'\n", 4, "want user or account"},
		"key without cert": {"[tls]\nkey_file = '/k'\nagent_certificates = 'optional'\n", 0, "come together"},
		"required of none": {"[tls]\nagent_certificates = 'required'\n", 2, "required needs"},
		"jwt in the clear": {"[identity]\nmethod = 'jwt'\njwt_key_file = '/k'\n", 2, "it needs [tls]"},
		"jwt without key":  {"[identity]\nmethod = 'jwt'\nallow_root = true\n[tls]\ncert_file = '/c'\nkey_file = '/k'\n", 0, "jwt_hs256.key"},
		"caller's jwt":     {"[broker]\naddress = 'b:1'\n[identity]\nmethod = 'jwt'\n", 4, "it needs tls.ca_file"},
		"caller's cert":    {"[broker]\naddress = 'b:1'\n[tls]\ncert_file = '/c'\nkey_file = '/k'\n", 0, "without it there is no TLS"},
		"audit's file":     {"[audit]\nfile = 'here'\n", 2, "audit.file"},
		"audit's failure":  {"[audit]\non_failure = 'ignore'\n", 2, "want refuse or continue"},
		"broker's unknown": {"[limits]\nmax_executers = 3\n", 2, "unknown key limits.max_executers"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := Check(write(t, test.text))
			var finding *Error
			if !errors.As(err, &finding) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if finding.Line != test.line || !strings.Contains(finding.Text, test.want) {
				t.Errorf("got line %d %q, want line %d …%s…", finding.Line, finding.Text, test.line, test.want)
			}
		})
	}
}

// One run names everything that is wrong, in the order of the file.
func TestEveryFinding(t *testing.T) {
	err := Check(write(t, `[broker]
listn = "0.0.0.0:7461"
listen = "x"
state_dir = 5
[slurm]
source = "foo"
poll = "never"
[identity]
agents = "root"
`))
	if err == nil {
		t.Fatal("no findings")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		_, text, _ := strings.Cut(line, "gleaner.toml:")
		number, _, _ := strings.Cut(text, ":")
		got = append(got, number)
	}
	if diff := cmp.Diff([]string{"2", "3", "4", "6", "7", "9"}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s%v", diff, err)
	}
}

// A site checks what was installed before it fills it in.
func TestCheckSamples(t *testing.T) {
	t.Setenv("GLEANER_BROKER", "head:7461") // the caller's, which does not complete the file
	if err := Check("../contrib/config/broker.toml"); err != nil {
		t.Error(err)
	}
	if err := Check("../contrib/config/agent.toml"); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "broker.address: missing") {
		t.Errorf("got %v, want that broker.address is missing and nothing else", err)
	}
	if c, err := LoadAgent("../contrib/config/agent.toml", "n1"); err != nil || c.Broker.Address != "head:7461" {
		t.Errorf("the agent itself: %v", err)
	}
}

func TestNodeName(t *testing.T) {
	file := write(t, "[node]\nname = 'fromfile'\n[agent]\nsocket = '/run/%n/agent.sock'\n[broker]\naddress = 'b:1'\n")
	c, err := LoadAgent(file, "n7")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "n7" || c.Agent.Socket != "/run/n7/agent.sock" {
		t.Errorf("got name %q, socket %q", c.Node.Name, c.Agent.Socket)
	}
	if c, err = LoadAgent(file, ""); err != nil || c.Node.Name != "fromfile" {
		t.Errorf("got name %q, error %v", c.Node.Name, err)
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]uint64{"16": 16 << 20, "1K": 1 << 10, "4096M": 4 << 30, "16g": 16 << 30, "1.5GB": 3 << 29, "2T": 2 << 40} {
		if got, err := ParseMemory(text); err != nil || got != want {
			t.Errorf("ParseMemory(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1G", "1X", "NaN", "1e30T", "Inf"} {
		if got, err := ParseMemory(text); err == nil {
			t.Errorf("ParseMemory(%q) = %d, want an error", text, got)
		}
	}
	for bytes, want := range map[uint64]string{512 << 20: "512M", 3 << 29: "1.5G", 0: "0K", 1 << 50: "1024T"} {
		if got := FormatMemory(bytes); got != want {
			t.Errorf("FormatMemory(%d) = %q, want %q", bytes, got, want)
		}
	}
	durations := map[string]time.Duration{
		"30": 30 * time.Second, "1:30": 90 * time.Second, "1:00:00": time.Hour, "2-0": 48 * time.Hour,
		"1-1:30": 25*time.Hour + 30*time.Minute, "50ms": 50 * time.Millisecond, "90-00:00:00": 90 * 24 * time.Hour,
	}
	for text, want := range durations {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1s", "1:2:3:4", "soon", "1-", "-5"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("[node]\ncpus = 4\n")
	f.Add("[broker]\nlisten = '0.0.0.0:1'\n[limits]\nhistory = '1-0'\n")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "f.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(file); err != nil && !strings.Contains(err.Error(), "f.toml") {
			t.Errorf("error without the file's name: %v", err)
		}
	})
}

func TestLoadClient(t *testing.T) {
	t.Setenv("GLEANER_BROKER", "")
	t.Setenv("GLEANER_CA", "")
	file := write(t, "[broker]\naddress = 'b:1'\n[tls]\nca_file = '/ca'\ncert_file = '/c'\nkey_file = '/k'\n[identity]\nmethod = 'jwt'\ntoken_file = '/t'\n")
	c, err := LoadClient(file)
	want := &Client{BrokerClient{Address: "b:1"}, ClientTLS{CAFile: "/ca"}, Credential{Method: "jwt"}}
	if diff := cmp.Diff(want, c); err != nil || diff != "" {
		t.Errorf("%v; what is the agent's alone is not a caller's (-want +got):\n%s", err, diff)
	}
	t.Setenv("GLEANER_CA", "/other")
	if c, err = LoadClient(file); err != nil || c.TLS.CAFile != "/other" {
		t.Errorf("got %+v, %v", c, err)
	}
}
