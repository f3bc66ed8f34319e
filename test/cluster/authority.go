package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"syscall"
	"time"
)

// certifiedFor is how long certificates hold, both ways from now: clocks are stepped in some tests.
const certifiedFor = 10 * 365 * 24 * time.Hour

// writeCertificates makes the cluster's own CA, etc/ca.pem, and certificates that it signs: etc/broker.pem, and etc/agent-NODE.pem
// per node, each with its key beside it, which its daemon alone can read. The CA's key is not kept.
func (c *Cluster) writeCertificates() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("CA of cluster " + c.Name)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	if err := c.certify("ca", ca, ca, key, key, nil); err != nil {
		return err
	}
	broker := template("broker")
	broker.DNSNames, broker.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	if err := c.issue("broker", broker, ca, key, brokerUser()); err != nil {
		return err
	}
	for _, node := range c.NodeNames() {
		if err := c.issue("agent-"+node, template(node), ca, key, agentUser()); err != nil {
			return err
		}
	}
	return nil
}

func template(name string) *x509.Certificate {
	now := time.Now()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-certifiedFor), NotAfter: now.Add(certifiedFor),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// issue signs a certificate for a new key.
func (c *Cluster) issue(name string, cert, ca *x509.Certificate, signer *ecdsa.PrivateKey, owner *syscall.Credential) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return c.certify(name, cert, ca, key, signer, owner)
}

// certify writes NAME.pem and, for an owner, NAME.key.
func (c *Cluster) certify(name string, cert, ca *x509.Certificate, key, signer *ecdsa.PrivateKey, owner *syscall.Credential) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := os.WriteFile(c.etc(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	if owner == nil {
		return nil
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	path := c.etc(name + ".key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return os.Chown(path, int(owner.Uid), int(owner.Gid))
}
