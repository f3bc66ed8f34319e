// Package launcher is the contract between the agent and the launcher, the one privileged process of a node. It is spoken on a
// Unix stream socket that accepts only the agent's uid, a JSON object a line. Requests carry an id and are answered in any order; Exited
// events come unasked, to every connection.
package launcher

import (
	"errors"
	"time"
)

// ErrShut is in the answer to a Start while a job's gate has shut the node: it has ended by force what was harvested there, and nothing
// is started before Open.
var ErrShut = errors.New("a job's gate has shut this node")

// Verb names what is asked.
type Verb string

const (
	// Start creates and starts one sandbox. It answers when the executor's process runs.
	Start Verb = "start"
	// Kill ends sandboxes and answers when their processes are gone and their memory is uncharged, or at the deadline.
	// Sandboxes that do not exist count as ended.
	Kill Verb = "kill"
	// Resize gives a running sandbox the cores, memory, /tmp and process limits of a Spec with its ID; user, groups and devices
	// stay. Its figures count from then on.
	Resize Verb = "resize"
	// Freeze and Thaw stop and continue every process of the sandboxes.
	Freeze Verb = "freeze"
	Thaw   Verb = "thaw"
	// List reports every sandbox of this node, running or not yet cleaned up.
	List Verb = "list"
	// Open lets sandboxes be started again after the gates of Jobs have shut the node, and answers with the jobs for which it is still
	// shut. The caller has entered what these jobs hold, and waits for no Start.
	Open Verb = "open"
)

const (
	MaxRequest = 1 << 20 // bytes of a request's line
	MaxCalls   = 64      // under way at a time on one connection; more wait in the socket
)

// Request is one call.
type Request struct {
	ID       uint64        `json:"id"`
	Verb     Verb          `json:"verb"`
	Spec     Spec          `json:"spec,omitzero"`      // Start, Resize
	IDs      []string      `json:"ids,omitempty"`      // Kill, Freeze, Thaw: sandbox ids
	Deadline time.Duration `json:"deadline,omitempty"` // for the answer; a minute at most, and where it is 0
	Jobs     []uint32      `json:"jobs,omitempty"`     // Open
}

// Spec describes one sandbox. The launcher refuses what it may not be, naming the field. Binaries, cgroup parent and root file
// system are the launcher's own configuration and cannot be asked for.
type Spec struct {
	ID     string   `json:"id"`               // [a-z0-9-], at most 64 bytes
	UID    uint32   `json:"uid"`              // functions run as this host user
	GID    uint32   `json:"gid"`              //
	Groups []uint32 `json:"groups,omitempty"` // supplementary

	CPUs        []int    `json:"cpus,omitempty"` // physical CPU numbers; empty means no affinity
	MilliCPUs   int      `json:"milli_cpus"`     // quota, thousandths of a CPU, 10 to 1024000
	MemoryBytes int64    `json:"memory_bytes"`   // hard limit, no swap
	TmpBytes    int64    `json:"tmp_bytes"`      // size of /tmp, charged to the memory limit
	PIDs        int      `json:"pids"`           // processes and threads
	Devices     []string `json:"devices,omitempty"`
	// Image is the key of a root that the images helper has mounted, 64 hexadecimal digits; empty means the node's own programs.
	Image string `json:"image,omitempty"`
	Binds []Bind `json:"binds,omitempty"`
}

// Bind shows files of the sandbox's user in the sandbox: a folder, without what is mounted below, or a regular file. It is opened with the
// user's rights, and no part of the source's path may be a symbolic link.
type Bind struct {
	Source   string `json:"source"` // on the host
	Target   string `json:"target"` // in the sandbox; at least two components, the first of which is none that the sandbox has itself
	Writable bool   `json:"writable,omitempty"`
}

// Reply answers the request with the same ID, or, with ID 0, carries an event.
type Reply struct {
	ID        uint64    `json:"id"`
	Error     string    `json:"error,omitempty"`
	PID       int       `json:"pid,omitempty"`       // Start: the executor, in the host's pid namespace
	Remaining []string  `json:"remaining,omitempty"` // Kill: not ended, or memory still charged, at the deadline
	Sandboxes []Sandbox `json:"sandboxes,omitempty"` // List
	Exited    *Exited   `json:"exited,omitempty"`    // event
	Shut      []uint32  `json:"shut,omitempty"`      // Open: jobs whose gates keep the node shut
}

// Sandbox is what List says of one.
type Sandbox struct {
	ID          string    `json:"id"`
	PID         int       `json:"pid"`
	Running     bool      `json:"running"`
	Frozen      bool      `json:"frozen"`
	Started     time.Time `json:"started"`
	CPUNanos    uint64    `json:"cpu_ns"`       // since its start
	MemoryBytes uint64    `json:"memory_bytes"` // charged now
	PeakBytes   uint64    `json:"peak_bytes"`
	Spec        Spec      `json:"spec"`
}

// Exited says that a sandbox ended, by Kill or by itself. Its cgroup and folders are gone when it is sent.
type Exited struct {
	ID        string    `json:"id"`
	Code      int       `json:"code"`   // exit status, -1 when killed by a signal, or unknown: the launcher was restarted meanwhile
	Signal    int       `json:"signal"` // 0 when it exited, or unknown
	OOM       bool      `json:"oom"`    // its memory limit killed something in it
	CPUNanos  uint64    `json:"cpu_ns"`
	PeakBytes uint64    `json:"peak_bytes"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`
}
