// Package invoke measures invocations from end to end beside the bare carrier under them, in turns in one run. Each turn has
// processes of its own: how fast a ring is depends on where its memory happens to lie. Executors are ordinary processes of this
// machine, assigned by this package instead of an agent: sandbox, agent and broker are not on the path of an invocation. The C
// caller and the bare carriers are the program bench/wire.
package invoke

import (
	"time"

	"github.com/gleaner-hpc/gleaner/bench"
)

// Config says what to measure.
type Config struct {
	Executor string // program, required; its worker lies beside it
	Wire     string // program, required
	Function string // library whose function "echo" returns its input, required

	Carriers []string      // "ring" and "ofi"
	Provider string        // of libfabric
	Host     string        // address that libfabric uses
	Sizes    []int         // payloads in bytes, at most 1 MiB
	Rounds   int           // round trips of 64 bytes in each turn; larger payloads get fewer
	Turns    int           // each turn measures everything once, with new processes
	Spin     time.Duration // budget of the hot measurements
	Progress func(string)  // told what begins; nil: nobody
}

// Row is one measurement. Times are in nanoseconds.
type Row struct {
	Carrier  string  `json:"carrier"`
	What     string  `json:"what"`   // hot, warm, in-flight or bandwidth
	Caller   string  `json:"caller"` // C, Go or "Go in place", whose arguments and results are not copied; functions are always C
	Bytes    int     `json:"bytes"`
	InFlight int     `json:"in_flight"`
	Measured Times   `json:"measured"`
	Bare     Times   `json:"bare"`
	Rate     float64 `json:"per_second"`      // invocations, of the best turn
	BareRate float64 `json:"bare_per_second"` // messages or writes
	Ratio    float64 `json:"ratio"`           // of a turn's p50, for bandwidth of its rates, to those of the bare carrier in the same turn: the median over turns
	Bound    float64 `json:"bound,omitempty"` // of Ratio, 0 for none; for in-flight of Rate
	Within   bool    `json:"within"`
	Allocs   float64 `json:"allocs_per_call"` // Go caller
}

// Times are percentiles.
type Times struct {
	Samples int    `json:"samples"`
	P50     uint32 `json:"p50_ns"`
	P99     uint32 `json:"p99_ns"`
	P999    uint32 `json:"p999_ns"`
}

// Result is the document of 'gleaner bench invoke'.
type Result struct {
	Schema   string        `json:"schema"`
	Machine  bench.Machine `json:"machine"`
	Provider string        `json:"provider"` // of libfabric
	Rows     []Row         `json:"rows"`
}
