package config

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Agent is a node's configuration, with every default filled in that does not need a look at the machine.
type Agent struct {
	Node     Node         `toml:"node"`
	Agent    AgentDaemon  `toml:"agent"`
	Broker   BrokerClient `toml:"broker"`
	TLS      ClientTLS    `toml:"tls"`
	Identity Credential   `toml:"identity"`
	Launcher Launcher     `toml:"launcher"`
	Executor Executor     `toml:"executor"`
	Fabric   Fabric       `toml:"fabric"`
	Evict    Evict        `toml:"evict"`
	Lend     Lend         `toml:"lend"`
	Images   Images       `toml:"images"`
	Sandbox  Sandbox      `toml:"sandbox"`
}

// Node says what of the machine belongs to Slurm and may be lent.
type Node struct {
	Name          string   `toml:"name"`
	CPUs          int      `toml:"cpus"`   // 0: all that the machine has
	Memory        Memory   `toml:"memory"` // 0: all that the machine has
	ReserveMemory Memory   `toml:"reserve_memory"`
	ReserveCPUs   int      `toml:"reserve_cpus"`
	GPUs          []string `toml:"gpus"`
	Affinity      string   `toml:"affinity"`   // auto, yes, no
	JobMemory     string   `toml:"job_memory"` // counted, share
}

// AgentDaemon says where the agent keeps its things.
type AgentDaemon struct {
	Socket   string `toml:"socket"`
	RunDir   string `toml:"run_dir"`
	StateDir string `toml:"state_dir"`
	Metrics  string `toml:"metrics"`
	LogLevel string `toml:"log_level"`
}

// BrokerClient says where the broker is.
type BrokerClient struct {
	Address     string `toml:"address"`
	MungeSocket string `toml:"munge_socket"` // "": munge's default
}

// Launcher says where the launcher listens.
type Launcher struct {
	Socket string `toml:"socket"`
}

// Executor says where executors serve.
type Executor struct {
	Listen       string `toml:"listen"` // "": the address that reaches the broker
	Parked       int    `toml:"parked"` // sandboxes started ahead of demand, 0 for none
	ParkedMemory Memory `toml:"parked_memory"`
}

// Images says where the images helper listens, which only nodes with images have.
type Images struct {
	Socket string `toml:"socket"` // "": none are offered
}

// Fabric chooses the carrier between nodes.
type Fabric struct {
	Provider string `toml:"provider"` // "": tcp;ofi_rxm, "none": the ring only
}

// Evict holds the timeouts of eviction.
type Evict struct {
	WarnTimeout   Duration `toml:"warn_timeout"`
	OrphanTimeout Duration `toml:"orphan_timeout"`
	MaxGrace      Duration `toml:"max_grace"`
}

// Lend bounds what is lent of the memory that jobs do not use, where the broker's policy lends any.
type Lend struct {
	Window Duration `toml:"window"` // over which the most that a job used counts
	Settle Duration `toml:"settle"` // a younger job lends nothing
	Margin Memory   `toml:"margin"` // beyond the most used
}

// LoadAgent reads an agent's file. name, when given, is the node's name and wins over the file's. $GLEANER_BROKER wins over
// broker.address.
func LoadAgent(file, name string) (*Agent, error) { return loadAgent(file, name, os.Getenv) }

func loadAgent(file, name string, getenv func(string) string) (*Agent, error) {
	c := defaultAgent()
	doc, err := decode(file, c)
	if err != nil {
		return nil, err
	}
	c.fill(name, getenv)
	c.validate(doc)
	return c, doc.err()
}

func defaultAgent() *Agent {
	return &Agent{
		Node: Node{ReserveMemory: 1 << 30, Affinity: "auto", JobMemory: "counted"},
		Agent: AgentDaemon{
			Socket: "/run/gleaner/agent.sock", RunDir: "/run/gleaner-launch", StateDir: "/var/lib/gleaner/agent",
			Metrics: "127.0.0.1:9095", LogLevel: "info",
		},
		Identity: Credential{Method: "munge"},
		Images:   Images{Socket: "/run/gleaner-launch/images.sock"},
		Launcher: Launcher{Socket: "/run/gleaner-launch/launch.sock"},
		Executor: Executor{Parked: 1, ParkedMemory: 64 << 20},
		Lend:     Lend{Window: Duration(10 * time.Minute), Settle: Duration(time.Minute), Margin: 256 << 20},
		Evict:    Evict{WarnTimeout: Duration(5 * time.Second), OrphanTimeout: Duration(2 * time.Minute)},
		Sandbox:  Sandbox{Waive: []string{}, Binds: []string{}},
	}
}

// fill resolves the node's name, %n and the environment.
func (c *Agent) fill(name string, getenv func(string) string) {
	host, _ := os.Hostname()
	short, _, _ := strings.Cut(host, ".")
	for _, candidate := range []string{name, c.Node.Name, getenv("SLURMD_NODENAME"), short} {
		if candidate != "" {
			c.Node.Name = candidate
			break
		}
	}
	for _, path := range []*string{&c.Agent.Socket, &c.Agent.RunDir, &c.Agent.StateDir, &c.Launcher.Socket, &c.Images.Socket} {
		*path = strings.ReplaceAll(*path, "%n", c.Node.Name)
	}
	if broker := getenv("GLEANER_BROKER"); broker != "" {
		c.Broker.Address = broker
	}
}

func (c *Agent) validate(doc *document) {
	doc.require(validName(c.Node.Name), "node.name", "%q is no node name; use NodeName as slurm.conf has it", c.Node.Name)
	doc.require(c.Node.CPUs >= 0 && c.Node.CPUs <= 1<<16, "node.cpus", "%d is out of range 0 to 65536", c.Node.CPUs)
	doc.require(c.Node.ReserveCPUs >= 0, "node.reserve_cpus", "%d is negative", c.Node.ReserveCPUs)
	doc.require(c.Node.Memory == 0 || c.Node.ReserveMemory < c.Node.Memory, "node.reserve_memory", "leaves nothing of node.memory")
	doc.require(oneOf(c.Node.JobMemory, "counted", "share"), "node.job_memory", "%q; want counted or share", c.Node.JobMemory)
	doc.require(oneOf(c.Node.Affinity, "auto", "yes", "no"), "node.affinity", "%q; want auto, yes or no", c.Node.Affinity)
	for _, device := range c.Node.GPUs {
		doc.require(filepath.IsAbs(device), "node.gpus", "%q; want absolute paths of device files", device)
	}
	doc.absolute("agent.socket", c.Agent.Socket)
	doc.absolute("agent.run_dir", c.Agent.RunDir)
	doc.absolute("agent.state_dir", c.Agent.StateDir)
	doc.absolute("launcher.socket", c.Launcher.Socket)
	doc.require(c.Images.Socket == "" || filepath.IsAbs(c.Images.Socket), "images.socket", "%q; want an absolute path, or nothing for no images", c.Images.Socket)
	doc.address("agent.metrics", c.Agent.Metrics, true)
	doc.level("agent.log_level", c.Agent.LogLevel)
	doc.require(c.Broker.Address != "", "broker.address", "missing; write host:port of the broker")
	doc.address("broker.address", c.Broker.Address, true)
	c.TLS.validate(doc)
	c.Identity.validate(doc, c.TLS)
	doc.require(c.Executor.Listen == "" || net.ParseIP(c.Executor.Listen) != nil, "executor.listen", "%q is no IP address", c.Executor.Listen)
	doc.require(c.Executor.Parked >= 0 && c.Executor.Parked <= 64, "executor.parked", "%d is out of range 0 to 64", c.Executor.Parked)
	doc.require(c.Executor.ParkedMemory >= 32<<20, "executor.parked_memory", "want at least 32M")
	c.Sandbox.validate(doc)
	doc.require(c.Lend.Window >= Duration(time.Second), "lend.window", "want at least 1s")
	doc.require(c.Lend.Settle >= Duration(time.Second), "lend.settle", "want at least 1s")
	doc.require(c.Lend.Margin >= 64<<20, "lend.margin", "want at least 64M, which a job may take before it is noticed")
	doc.require(c.Evict.WarnTimeout >= Duration(time.Second), "evict.warn_timeout", "want at least 1s")
	doc.require(c.Evict.MaxGrace >= 0 && c.Evict.MaxGrace <= Duration(50*time.Millisecond), "evict.max_grace", "want at most 50ms, which is how long a gate waits for an answer")
	doc.require(c.Evict.OrphanTimeout >= Duration(time.Second), "evict.orphan_timeout", "want at least 1s")
}
