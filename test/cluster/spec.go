package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// spec is everything that a cluster's files and command lines follow from. It is kept in the cluster's folder.
type spec struct {
	Dir       string            `json:"dir"`
	Build     string            `json:"build"`
	Name      string            `json:"name"` // unique to the folder; node names and cgroups carry it
	Nodes     int               `json:"nodes"`
	Mode      Mode              `json:"mode"`
	CPUs      int               `json:"cpus"`
	MemoryMiB int               `json:"memory_mib"`
	GPUs      int               `json:"gpus"`
	Without   []string          `json:"without"`
	Parked    int               `json:"parked,omitempty"`
	Lines     []string          `json:"slurm_conf"`
	StateMiB  int               `json:"state_mib,omitempty"`
	Programs  map[string]string `json:"programs,omitempty"`
	Port      int               `json:"port"` // slurmctld's; the nodes' follow it, then the broker's
}

const (
	maxNodes = 64
	// maxDir leaves room for the socket paths below the folder, which the kernel limits to 107 bytes.
	maxDir   = 50
	specFile = "cluster.json"
)

// optional are the roles that a cluster comes up without.
var optional = []string{"agentd", "brokerd", "launch", "gate", "hook", "slurmrestd"}

func newSpec(o Options) (*spec, error) {
	if o.Dir == "" {
		return nil, errors.New("cluster folder: want a path")
	}
	dir, err := locate(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &spec{
		Dir: dir, Build: o.Build, Name: clusterName(dir), Nodes: o.Nodes, Mode: o.Mode, CPUs: o.CPUs, MemoryMiB: o.MemoryMiB,
		GPUs: o.GPUs, Without: o.Without, Lines: o.SlurmConf, StateMiB: o.StateMiB, Programs: o.Programs, Parked: o.Parked,
	}
	s.fill()
	if s.Build, err = filepath.Abs(s.Build); err != nil {
		return nil, err
	}
	return s, s.validate()
}

func (s *spec) fill() {
	if s.Build == "" {
		s.Build = Build()
	}
	if s.Nodes == 0 {
		s.Nodes = 4
	}
	if s.Mode == "" {
		s.Mode = Virtual
	}
	if s.CPUs == 0 {
		s.CPUs = 8
	}
	if s.Mode == Cgroup {
		s.CPUs = runtime.NumCPU()
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = 4000
	}
	switch {
	case s.GPUs == 0:
		s.GPUs = 2
	case s.GPUs < 0:
		s.GPUs = 0
	}
}

func (s *spec) validate() error {
	switch {
	case strings.ContainsAny(s.Dir, " \t\n\"'%#"):
		return fmt.Errorf("cluster folder %q: slurm.conf cannot hold this path", s.Dir)
	case s.Nodes < 1 || s.Nodes > maxNodes:
		return fmt.Errorf("%d nodes: want 1 to %d", s.Nodes, maxNodes)
	case s.Mode != Virtual && s.Mode != Cgroup:
		return fmt.Errorf("mode %q: want %s or %s", s.Mode, Virtual, Cgroup)
	case slices.ContainsFunc(s.Without, func(role string) bool { return !slices.Contains(optional, kind(role)) }):
		return fmt.Errorf("without %s: want roles among %s, or a node's, such as agentd/%sn1", strings.Join(s.Without, " "), strings.Join(optional, " "), s.Name)
	case s.CPUs < 1 || s.MemoryMiB < 64:
		return fmt.Errorf("%d CPUs and %d MiB per node: too few", s.CPUs, s.MemoryMiB)
	}
	return nil
}

func (s *spec) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, specFile), append(text, '\n'), 0o644)
}

func loadSpec(dir string) (*spec, error) {
	dir, err := locate(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return nil, fmt.Errorf("no cluster in %s: %w", dir, err)
	}
	s := new(spec)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", specFile, dir, err)
	}
	return s, nil
}

// locate returns the folder that stands for dir: dir itself, or one in /tmp when socket paths below dir would be too long, or when
// other users cannot come in, which slurmrestd and jobs have to.
func locate(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if len(dir) <= maxDir && open(filepath.Dir(dir)) {
		return dir, nil
	}
	return "/tmp/gleaner-" + clusterName(dir)[1:], nil
}

// open says whether everybody may pass through a folder and those above it. Folders that do not exist yet will be open.
func open(dir string) bool {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			return false
		}
	}
	return true
}

// clusterName is the same for a folder each time, so that what a dead cluster left is found without its files.
func clusterName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "g" + hex.EncodeToString(sum[:3])
}

// claim makes the folder ours: absent, empty, or with a cluster in it, which is taken down.
func claim(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 && !isCluster(dir) {
		return fmt.Errorf("cluster folder %s: it holds other things; choose another with DIR=", dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := Clean(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // users other than root use the sockets
		return err
	}
	return os.WriteFile(filepath.Join(dir, specFile), []byte("{}\n"), 0o644)
}

func isCluster(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, specFile))
	return err == nil
}

// choosePorts finds free neighbours below the range from which the kernel picks ports itself.
func (s *spec) choosePorts() error {
	const low, high = 15000, 32000
	count := s.Nodes + 2
	seed, _ := strconv.ParseUint(s.Name[1:], 16, 32)
	start := low + int(seed)%(high-low-count)
	for try := range 200 {
		base := low + (start-low+try*(maxNodes+2))%(high-low-count)
		if allFree(base, count) {
			s.Port = base
			return nil
		}
	}
	return fmt.Errorf("no %d free neighbouring ports between %d and %d", count, low, high)
}

func allFree(base, count int) bool {
	for port := base; port < base+count; port++ {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// Build is the build folder beside go.mod, searched from the working directory upwards.
func Build() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return filepath.Join(dir, "build")
		}
		dir = filepath.Dir(dir)
	}
	return "/usr/local"
}

// program finds a daemon or command, also in the folders that a user's PATH lacks.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// NodeNames lists the nodes in order.
func (s *spec) NodeNames() []string {
	names := make([]string, s.Nodes)
	for i := range names {
		names[i] = fmt.Sprintf("%sn%d", s.Name, i+1)
	}
	return names
}

// NodeList is the nodes as Slurm writes them.
func (s *spec) NodeList() string {
	if s.Nodes == 1 {
		return s.NodeNames()[0]
	}
	return fmt.Sprintf("%sn[1-%d]", s.Name, s.Nodes)
}

// CgroupParent is the cgroup below which Gleaner's sandboxes live, one level per node.
func (s *spec) CgroupParent() string { return "gleaner-" + s.Name }

// Broker is the broker's address.
func (s *spec) Broker() string { return "127.0.0.1:" + strconv.Itoa(s.Port+s.Nodes+1) }

// SlurmConf, ClientConf, RestSocket, MungeSocket, AgentSocket, ExecutorSocket, LaunchSocket, StateDir, Log and
// RunDir are paths in the cluster's folder.
func (s *spec) SlurmConf() string              { return s.etc("slurm.conf") }
func (s *spec) ClientConf() string             { return s.etc("client.toml") }
func (s *spec) RestSocket() string             { return s.path("rest", "slurmrestd.sock") }
func (s *spec) MungeSocket() string            { return s.path("munge", "munge.sock") }
func (s *spec) RunDir(node string) string      { return s.path("run", node) }
func (s *spec) AgentSocket(node string) string { return s.path("agent", node, "agent.sock") }
func (s *spec) Files() string                  { return s.path("files") } // below it leases may bind
func (s *spec) ClockFile(role string) string   { return s.path("clock", fileName(role)) }
func (s *spec) ExecutorSocket(node string) string {
	return s.path("run", node, "agent", "sockets", "executors.sock")
}
func (s *spec) LaunchSocket(node string) string { return s.path("run", node, "launch.sock") }

// ImagesSocket is where a node's images helper listens, when a test starts one.
func (s *spec) ImagesSocket(node string) string { return s.path("run", node, "images.sock") }
func (s *spec) Log(role string) string          { return s.path("log", fileName(role)+".log") }

func (s *spec) path(parts ...string) string {
	return filepath.Join(append([]string{s.Dir}, parts...)...)
}
func (s *spec) etc(name string) string { return s.path("etc", name) }
func (s *spec) lib(parts ...string) string {
	return filepath.Join(append([]string{s.Build}, parts...)...)
}

func (s *spec) without(role string) bool {
	kind, _, _ := strings.Cut(role, "/")
	return slices.Contains(s.Without, kind) || slices.Contains(s.Without, role)
}

func fileName(role string) string { return strings.ReplaceAll(role, "/", "-") }
