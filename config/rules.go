package config

import (
	"encoding/hex"
	"fmt"
	"regexp"
)

// Rule is an [[allow]] or [[deny]]: whom and what it covers, and where. Empty lists cover everything.
type Rule struct {
	Name       string   `toml:"name"` // unique among all rules; users read it
	Users      []string `toml:"users"`
	Groups     []string `toml:"groups"`
	Accounts   []string `toml:"accounts"`
	Digests    []string `toml:"digests"` // SHA-256 of function libraries, in hex
	Images     []string `toml:"images"`  // names or digests, as leases give them
	Partitions []string `toml:"partitions"`
	Nodes      string   `toml:"nodes"` // a list of hosts, as Slurm writes it
}

// Limit is a [[limit]]: what the living leases of one user, or of one account, may ask for at the same time.
type Limit struct {
	Name      string   `toml:"name"`
	Per       string   `toml:"per"` // user, account
	Users     []string `toml:"users"`
	Groups    []string `toml:"groups"`
	Accounts  []string `toml:"accounts"`
	Executors int      `toml:"executors"` // 0: any number
	Cores     int      `toml:"cores"`
	Memory    Memory   `toml:"memory"`
}

var nodeList = regexp.MustCompile(`^[A-Za-z0-9_.,\[\]-]+$`)

var ruleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// reserved are reasons of denial that are no rule's.
var reserved = map[string]bool{
	"allow_list": true, "allow_root": true, "audit": true, "infeasible": true, "invalid": true, "job": true, "max_executors": true, "max_leases_per_user": true,
}

func (c *Broker) validateRules(doc *document) {
	seen := map[string]bool{}
	name := func(table, name string) {
		doc.require(ruleName.MatchString(name), table+".name", "%q; want letters, digits, _ . and -, for users to read", name)
		doc.require(!seen[name], table+".name", "%q names another rule already", name)
		doc.require(!reserved[name], table+".name", "%q is a reason of Gleaner's own", name)
		seen[name] = true
	}
	for kind, rules := range map[string][]Rule{"allow": c.Allow, "deny": c.Deny} {
		for i := range rules {
			r, table := &rules[i], fmt.Sprintf("%s[%d]", kind, i)
			name(table, r.Name)
			for _, digest := range r.Digests {
				b, err := hex.DecodeString(digest)
				doc.require(err == nil && len(b) == 32, table+".digests", "%q is no SHA-256 in hex, as sha256sum prints it", digest)
			}
			doc.require(r.Nodes == "" || nodeList.MatchString(r.Nodes), table+".nodes", "%q is no list of nodes, such as n[1-16],login", r.Nodes)
		}
	}
	for i := range c.Limit {
		l, table := &c.Limit[i], fmt.Sprintf("limit[%d]", i)
		name(table, l.Name)
		doc.require(oneOf(l.Per, "user", "account"), table+".per", "%q; want user or account", l.Per)
		doc.require(l.Executors >= 0 && l.Cores >= 0, table, "executors and cores cannot be negative")
		doc.require(l.Executors > 0 || l.Cores > 0 || l.Memory > 0, table, "limits nothing; write executors, cores or memory")
	}
}
