package config

import (
	"os"
	"path/filepath"
)

// ClientTLS says how the broker is known to those that connect to it, and what they show it.
type ClientTLS struct {
	CAFile     string `toml:"ca_file"`     // "": connect without TLS
	ServerName string `toml:"server_name"` // "": the host of broker.address
	CertFile   string `toml:"cert_file"`   // of agents, for brokers that want one
	KeyFile    string `toml:"key_file"`
}

// Credential says how a caller proves who it is.
type Credential struct {
	Method    string `toml:"method"`     // munge, jwt
	TokenFile string `toml:"token_file"` // of agents, for jwt; "": $SLURM_JWT
}

// Client is what a caller's configuration says: /etc/gleaner/client.toml, or the parts of an agent.toml that concern the broker.
type Client struct {
	Broker   BrokerClient
	TLS      ClientTLS
	Identity Credential
}

// LoadClient reads a caller's file. $GLEANER_BROKER wins over broker.address and $GLEANER_CA over tls.ca_file. The files that only
// the agent can read are left out: users share its file, not its certificate.
func LoadClient(file string) (*Client, error) {
	a := defaultAgent()
	doc, err := decode(file, a)
	if err != nil {
		return nil, err
	}
	a.fill("client", os.Getenv)
	a.TLS.CertFile, a.TLS.KeyFile, a.Identity.TokenFile = "", "", ""
	if ca := os.Getenv("GLEANER_CA"); ca != "" {
		a.TLS.CAFile = ca
	}
	a.validate(doc)
	return &Client{a.Broker, a.TLS, a.Identity}, doc.err()
}

func (t *ClientTLS) validate(doc *document) {
	for key, path := range map[string]string{"tls.ca_file": t.CAFile, "tls.cert_file": t.CertFile, "tls.key_file": t.KeyFile} {
		doc.require(path == "" || filepath.IsAbs(path), key, "%q; want an absolute path", path)
	}
	doc.require((t.CertFile == "") == (t.KeyFile == ""), "tls.cert_file", "cert_file and key_file come together")
	doc.require(t.CAFile != "" || t.CertFile == "" && t.ServerName == "", "tls.ca_file", "missing; without it there is no TLS")
}

func (c *Credential) validate(doc *document, t ClientTLS) {
	doc.require(oneOf(c.Method, "munge", "jwt"), "identity.method", "%q; want munge or jwt", c.Method)
	doc.require(c.Method != "jwt" || t.CAFile != "", "identity.method", "jwt sends a token that whoever overhears it can use: it needs tls.ca_file")
	doc.require(c.TokenFile == "" || filepath.IsAbs(c.TokenFile), "identity.token_file", "%q; want an absolute path", c.TokenFile)
}

// ServerTLS says how the broker is known.
type ServerTLS struct {
	CertFile          string `toml:"cert_file"` // "": serve without TLS
	KeyFile           string `toml:"key_file"`
	CAFile            string `toml:"ca_file"`            // signer of agents' certificates
	AgentCertificates string `toml:"agent_certificates"` // optional, required
}

func (t *ServerTLS) validate(doc *document) {
	for key, path := range map[string]string{"tls.ca_file": t.CAFile, "tls.cert_file": t.CertFile, "tls.key_file": t.KeyFile} {
		doc.require(path == "" || filepath.IsAbs(path), key, "%q; want an absolute path", path)
	}
	doc.require((t.CertFile == "") == (t.KeyFile == ""), "tls.cert_file", "cert_file and key_file come together")
	doc.require(oneOf(t.AgentCertificates, "optional", "required"), "tls.agent_certificates", "%q; want optional or required", t.AgentCertificates)
	doc.require(t.AgentCertificates != "required" || t.CAFile != "" && t.CertFile != "", "tls.agent_certificates", "required needs cert_file, key_file and ca_file")
}
