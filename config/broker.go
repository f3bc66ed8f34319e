package config

import (
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Broker is the broker's configuration with every default filled in.
type Broker struct {
	Broker   BrokerDaemon `toml:"broker"`
	Slurm    Slurm        `toml:"slurm"`
	TLS      ServerTLS    `toml:"tls"`
	Identity Identity     `toml:"identity"`
	Audit    Audit        `toml:"audit"`
	Allow    []Rule       `toml:"allow"`
	Deny     []Rule       `toml:"deny"`
	Limit    []Limit      `toml:"limit"`
	Policy   Policy       `toml:"policy"`
	Share    Share        `toml:"share"`
	Limits   Limits       `toml:"limits"`
}

// BrokerDaemon says where the broker listens and keeps its things.
type BrokerDaemon struct {
	Listen    string   `toml:"listen"`
	StateDir  string   `toml:"state_dir"`
	Metrics   string   `toml:"metrics"`
	LogLevel  string   `toml:"log_level"`
	Operators []string `toml:"operators"` // user names
}

// Slurm says how slurmctld is read.
type Slurm struct {
	Source    string   `toml:"source"` // auto, rest, scontrol
	URL       string   `toml:"url"`
	TokenFile string   `toml:"token_file"`
	Poll      Duration `toml:"poll"`
}

// Identity says how callers prove who they are.
type Identity struct {
	Method      string   `toml:"method"` // munge, jwt, none
	MungeSocket string   `toml:"munge_socket"`
	JWTKeyFile  string   `toml:"jwt_key_file"` // Slurm's jwt_hs256.key
	AllowRoot   bool     `toml:"allow_root"`
	FirstUID    uint32   `toml:"first_uid"` // of ordinary users; 0: UID_MIN of /etc/login.defs
	Agents      []string `toml:"agents"`    // user names or uids
}

// Audit says where the audit log is and what holds when it cannot be written.
type Audit struct {
	File      string `toml:"file"`       // "": audit.jsonl in broker.state_dir; "none": no audit log
	OnFailure string `toml:"on_failure"` // refuse, continue
}

// Limits bounds what is leased and kept.
type Limits struct {
	MaxExecutors     int      `toml:"max_executors"`
	MaxLeasesPerUser int      `toml:"max_leases_per_user"`
	MaxTTL           Duration `toml:"max_ttl"`
	NodeTimeout      Duration `toml:"node_timeout"`
	MaxRest          Duration `toml:"max_rest"`
	History          Duration `toml:"history"`
}

// LoadBroker reads a broker's file.
func LoadBroker(file string) (*Broker, error) {
	c := defaultBroker()
	doc, err := decode(file, c)
	if err != nil {
		return nil, err
	}
	if c.Slurm.Source == "auto" {
		c.Slurm.Source = "scontrol"
		if c.Slurm.URL != "" {
			c.Slurm.Source = "rest"
		}
	}
	c.validate(doc)
	return c, doc.err()
}

func defaultBroker() *Broker {
	return &Broker{
		Broker: BrokerDaemon{
			Listen: "0.0.0.0:7461", StateDir: "/var/lib/gleaner/broker", Metrics: "127.0.0.1:9094",
			LogLevel: "info", Operators: []string{"root"},
		},
		Slurm:    Slurm{Source: "auto", Poll: Duration(15 * time.Second)},
		Identity: Identity{Method: "munge", Agents: []string{"root", "gleaner", "slurm"}},
		TLS:      ServerTLS{AgentCertificates: "optional"},
		Audit:    Audit{OnFailure: "refuse"},
		Policy:   defaultPolicy(),
		Share:    Share{Default: "yes", Exclusive: "no", Partitions: map[string]string{}, Accounts: map[string]string{}},
		Limits: Limits{
			MaxExecutors: 4096, MaxLeasesPerUser: 64, MaxTTL: Duration(time.Hour),
			NodeTimeout: Duration(30 * time.Second), MaxRest: Duration(30 * time.Second), History: Duration(90 * 24 * time.Hour),
		},
	}
}

func (c *Broker) validate(doc *document) {
	doc.address("broker.listen", c.Broker.Listen, false)
	doc.address("broker.metrics", c.Broker.Metrics, true)
	doc.absolute("broker.state_dir", c.Broker.StateDir)
	doc.level("broker.log_level", c.Broker.LogLevel)
	doc.require(oneOf(c.Slurm.Source, "rest", "scontrol"), "slurm.source", "%q; want auto, rest or scontrol", c.Slurm.Source)
	doc.require(c.Slurm.Source != "rest" || slurmURL.MatchString(c.Slurm.URL), "slurm.url", "%q; want http://host:port or unix:/path", c.Slurm.URL)
	doc.require(c.Slurm.Poll >= Duration(time.Second), "slurm.poll", "want at least 1s, so that slurmctld is left in peace")
	c.TLS.validate(doc)
	doc.require(oneOf(c.Identity.Method, "munge", "jwt", "none"), "identity.method", "%q; want munge, jwt or none", c.Identity.Method)
	doc.require(c.Identity.Method != "jwt" || c.TLS.CertFile != "", "identity.method", "jwt has callers send a token that whoever overhears it can use: it needs [tls]")
	doc.require(c.Identity.Method != "jwt" || filepath.IsAbs(c.Identity.JWTKeyFile), "identity.jwt_key_file", "%q; want the absolute path of Slurm's jwt_hs256.key", c.Identity.JWTKeyFile)
	doc.require(c.Audit.File == "" || c.Audit.File == "none" || filepath.IsAbs(c.Audit.File), "audit.file", "%q; want an absolute path, or none", c.Audit.File)
	doc.require(oneOf(c.Audit.OnFailure, "refuse", "continue"), "audit.on_failure", "%q; want refuse or continue", c.Audit.OnFailure)
	c.validateRules(doc)
	c.Policy.validate(doc)
	c.Share.validate(doc)
	doc.require(c.Limits.MaxExecutors >= 1 && c.Limits.MaxExecutors <= 4096, "limits.max_executors", "%d is out of range 1 to 4096", c.Limits.MaxExecutors)
	doc.require(c.Limits.MaxLeasesPerUser >= 1, "limits.max_leases_per_user", "want at least 1")
	doc.require(c.Limits.MaxTTL >= Duration(2*time.Second), "limits.max_ttl", "want at least 2s")
	doc.require(c.Limits.NodeTimeout >= Duration(time.Second), "limits.node_timeout", "want at least 1s")
	doc.require(c.Limits.MaxRest >= Duration(10*time.Millisecond), "limits.max_rest", "want at least 10ms")
	doc.require(c.Limits.History >= Duration(time.Hour), "limits.history", "want at least 1h")
}

var (
	slurmURL = regexp.MustCompile(`^(https?://[^/]+|unix:/.+)$`)
	nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
)

func validName(s string) bool { return nodeName.MatchString(s) }

func oneOf(s string, choices ...string) bool { return slices.Contains(choices, s) }

func (d *document) absolute(key, path string) {
	d.require(filepath.IsAbs(path), key, "%q; want an absolute path", path)
}

func (d *document) level(key, level string) {
	d.require(oneOf(level, "debug", "info", "warn", "error"), key, "%q; want debug, info, warn or error", level)
}

// address checks host:port.
func (d *document) address(key, address string, emptyAllowed bool) {
	if address == "" && emptyAllowed {
		return
	}
	_, port, err := net.SplitHostPort(address)
	number, e := strconv.Atoi(port)
	d.require(err == nil && e == nil && number >= 0 && number < 1<<16 && !strings.ContainsAny(address, " \t"), key, "%q; want host:port", address)
}
