// Package executor is the contract between an executor in its sandbox and the agent of its node, spoken in frames of package
// jsonframe. The executor dials the agent's socket (bind-mounted into the sandbox) when it starts, and again whenever the
// connection breaks, so that an agent can be restarted beneath running executors. The agent believes the id in Hello only when
// the peer's process is in that sandbox's cgroup.
//
//	executor                agent
//	   Hello  ─────────────▶
//	          ◀─────────────  Prepare    to a parked executor only: a lease will follow, load what takes time
//	          ◀─────────────  Assign     at once, or later for a parked executor; repeated after a reconnect
//	  Prepared ────────────▶
//	   Ready  ─────────────▶             listening; repeated after a reconnect
//	          ◀─────────────  Revoke     the sandbox is killed right after: tell the clients why, wait for nothing
package executor

import "time"

// FromExecutor is one frame to the agent; exactly one field is set.
type FromExecutor struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Prepared *Prepared `json:"prepared,omitempty"`
	Ready    *Ready    `json:"ready,omitempty"`
	Failed   *Failed   `json:"failed,omitempty"`
	Refused  *Refused  `json:"refused,omitempty"`
	Usage    *Usage    `json:"usage,omitempty"`
}

// FromAgent is one frame to the executor; exactly one field is set.
type FromAgent struct {
	Prepare *Prepare `json:"prepare,omitempty"`
	Assign  *Assign  `json:"assign,omitempty"`
	Revoke  *Revoke  `json:"revoke,omitempty"`
}

// Prepare tells a parked executor what its lease will need: it starts its worker and opens the fabric's endpoint ahead of it.
type Prepare struct {
	ListenHost string `json:"listen_host"`
	Provider   string `json:"provider"`
}

// Hello names the sandbox that speaks.
type Hello struct {
	ID string `json:"id"`
}

// Prepared answers Prepare when nothing is left to load.
type Prepared struct{}

// Assign gives a lease to the executor.
type Assign struct {
	Executor      string        `json:"executor"` // the id that tokens name
	Lease         uint64        `json:"lease"`
	Epoch         uint64        `json:"epoch"` // tokens of an older epoch are refused; 0 admits all until a newer one has been seen
	Job           uint32        `json:"job"`   // Slurm job the lease belongs to, 0 for none
	PublicKey     []byte        `json:"public_key"`
	Symbol        string        `json:"symbol"`
	Name          string        `json:"name"`   // of the library, for people; "" when not known
	Digest        []byte        `json:"digest"` // SHA-256 of the library that clients upload
	CodeBytes     uint64        `json:"code_bytes"`
	BufferBytes   uint64        `json:"buffer_bytes"` // largest payload in either direction
	Cores         int           `json:"cores"`
	ListenHost    string        `json:"listen_host"`       // address on which the control connection and the fabric listen
	Provider      string        `json:"provider"`          // libfabric provider, "" means tcp;ofi_rxm, "none" the ring only
	Network       bool          `json:"network,omitempty"` // the function may open sockets of its own
	OrphanTimeout time.Duration `json:"orphan_timeout"`    // the executor ends itself when it has no agent for longer
}

// Ready says where clients may connect.
type Ready struct {
	Address string `json:"address"` // host:port#fingerprint, see package fabric/channel
	Local   string `json:"local"`   // path of the Unix socket as the sandbox sees it
}

// Failed says that the assignment cannot be served; the executor exits.
type Failed struct {
	Error string `json:"error"`
}

// Refused counts clients that were not let in, since the last such frame. At most one a second is sent.
type Refused struct {
	Tokens map[string]uint64 `json:"tokens"` // by reason, of TokenReasons
}

// Usage is what the executor's worker did since the executor's start, as the worker says, which belongs to the lease's user. It is
// sent at most once a second while the executor has clients, when the last one has gone, and before a lease that is revoked ends.
type Usage struct {
	SpinNS      uint64 `json:"spin_ns"` // polled without serving
	BusyNS      uint64 `json:"busy_ns"` // inside the function
	Invocations uint64 `json:"invocations"`
}

// TokenReasons are why a token is refused.
var TokenReasons = []string{"malformed", "forged", "expired", "foreign", "epoch"}

// Revoke says that the lease is over.
type Revoke struct {
	Reason string `json:"reason"` // as the client is to read it, such as "evicted: job 12 needed cores 0-3"
	// Grace is how long the request that runs may go on before the executor ends itself; the sandbox is killed right after it.
	Grace time.Duration `json:"grace,omitempty"`
}
