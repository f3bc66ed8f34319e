package config

import (
	"encoding/hex"
	"path/filepath"
	"time"
)

// policyFolder is where a plugin that is named without a path is.
const policyFolder = "/etc/gleaner/policies.d"

// Policy says who decides what is lent, where work is placed and who is evicted first.
type Policy struct {
	Name     string   `toml:"name"`     // built in: idle, slack, careful, pressure
	Plugin   string   `toml:"plugin"`   // a program that decides in the place of the one that name says; "": none
	SHA256   string   `toml:"sha256"`   // of the plugin, in hexadecimal
	Deadline Duration `toml:"deadline"` // for one answer of the plugin
	Watch    Duration `toml:"watch"`    // how often agents look how jobs fare
	Blind    string   `toml:"blind"`    // what pressure does beside jobs where a node cannot tell its memory bandwidth: "refuse" or "lend"
}

// Share says which jobs' unused resources may be lent when the job itself has not said: "yes" or "no" each.
type Share struct {
	Default    string            `toml:"default"`
	Exclusive  string            `toml:"exclusive"` // jobs that asked for whole nodes
	Partitions map[string]string `toml:"partitions"`
	Accounts   map[string]string `toml:"accounts"`
}

func defaultPolicy() Policy {
	return Policy{Name: "idle", Deadline: Duration(50 * time.Millisecond), Watch: Duration(500 * time.Millisecond), Blind: "refuse"}
}

// PluginPath is the plugin's file; "" for none.
func (p *Policy) PluginPath() string {
	if p.Plugin == "" || filepath.IsAbs(p.Plugin) {
		return p.Plugin
	}
	return filepath.Join(policyFolder, p.Plugin)
}

// Watches says whether the policy asks how jobs fare and what they do not use.
func (p *Policy) Watches() bool { return p.Plugin != "" || p.Name != "idle" }

func (p *Policy) validate(doc *document) {
	doc.require(oneOf(p.Name, "idle", "slack", "careful", "pressure"), "policy.name", "%q is no policy; built in: idle, slack, careful, pressure", p.Name)
	doc.require(p.Plugin == "" || filepath.IsAbs(p.Plugin) || filepath.Base(p.Plugin) == p.Plugin, "policy.plugin", "%q; want a file in %s or an absolute path", p.Plugin, policyFolder)
	sum, err := hex.DecodeString(p.SHA256)
	doc.require(p.Plugin == "" || err == nil && len(sum) == 32, "policy.sha256", "%q; want the plugin's SHA-256 in hexadecimal, as 'gleaner policy test' prints it", p.SHA256)
	doc.require(p.Plugin != "" || p.SHA256 == "", "policy.sha256", "there is no policy.plugin of which it could be the checksum")
	doc.require(p.Deadline >= Duration(time.Millisecond) && p.Deadline <= Duration(time.Second), "policy.deadline", "want 1ms to 1s: placement waits for it")
	doc.require(p.Watch >= Duration(100*time.Millisecond) && p.Watch <= Duration(10*time.Second), "policy.watch", "want 100ms to 10s")
	doc.require(oneOf(p.Blind, "refuse", "lend"), "policy.blind", "%q; want refuse or lend", p.Blind)
}

func (s *Share) validate(doc *document) {
	word := func(key, value string) {
		doc.require(oneOf(value, "yes", "no"), key, "%q; want yes or no", value)
	}
	word("share.default", s.Default)
	word("share.exclusive", s.Exclusive)
	for name, value := range s.Partitions {
		word("share.partitions."+name, value)
	}
	for name, value := range s.Accounts {
		word("share.accounts."+name, value)
	}
}
