package config

// Names of what keeps functions in their place, as sandbox.waive and gleaner check node have them.
const (
	GuardKernel     = "kernel"
	GuardNamespaces = "namespaces"
	GuardSeccomp    = "seccomp"
	GuardReadOnly   = "read-only-root"
	GuardProc       = "private-proc"
	GuardIdentity   = "identity"
	GuardCPUQuota   = "cpu-quota"
	GuardCPUSet     = "cpu-set"
	GuardCPULast    = "cpu-last"
	GuardMemory     = "memory-limit"
	GuardSwap       = "no-swap"
	GuardIO         = "io-last"
	GuardProcesses  = "process-limit"
	GuardDevices    = "devices"
	GuardOOM        = "oom-first"
)

// Guards lists them.
var Guards = []string{
	GuardKernel, GuardNamespaces, GuardSeccomp, GuardReadOnly, GuardProc, GuardIdentity, GuardCPUQuota, GuardCPUSet, GuardCPULast, GuardMemory,
	GuardSwap, GuardIO, GuardProcesses, GuardDevices, GuardOOM,
}

// Sandbox is what a node's site allows functions, beyond nothing.
type Sandbox struct {
	Waive   []string `toml:"waive"`   // guards that the site does without
	Binds   []string `toml:"binds"`   // folders below which a lease may ask for its owner's files
	Network bool     `toml:"network"` // a lease may ask for sockets
}

func (s Sandbox) validate(doc *document) {
	for _, name := range s.Waive {
		doc.require(oneOf(name, Guards...), "sandbox.waive", "%q is none of what gleaner check node names", name)
	}
	for _, folder := range s.Binds {
		doc.absolute("sandbox.binds", folder)
	}
}
