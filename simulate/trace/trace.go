// Package trace reads what a machine did: which jobs held which nodes from when to when, and when each was handed in. It knows three
// forms: the Standard Workload Format, sacct's --parsable2, and series of snapshots that count idle nodes. It is pure: readers come in,
// a Trace or an error with file and line goes out. What a form does not say is filled in by rules that stand in Notes.
package trace

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Trace is what a machine did. Times count from Origin.
type Trace struct {
	Origin time.Time     // zero when the form does not say
	Span   time.Duration // the machine is looked at from 0 to Span
	Nodes  []Node
	Jobs   []Job    // by Start
	Notes  []string // what was assumed, left out or cut
}

// Node is one node as slurm.conf describes it.
type Node struct {
	Name   string
	Cores  int    // CPUs that Slurm may allocate
	Memory uint64 // bytes, RealMemory
}

// Job is one job, or whatever else takes nodes.
type Job struct {
	Line   int // of the file
	Submit time.Duration
	Start  time.Duration
	End    time.Duration
	Limit  time.Duration // the time that was asked for; 0 when unknown
	On     []int32       // indexes of its nodes; nil when the form does not name them
	Whole  int           // nodes that it has to itself, when On is nil; 0: Cores says what it takes
	Cores  int           // on all nodes together; 0 with On: all cores of each
	Memory uint64        // bytes on each node; 0: the share of its cores
	Used   uint64        // bytes of Memory that it touched at most; 0 when unknown
	Down   bool          // no job: the nodes are down, drained or reserved
}

// Shape is what the caller says of a machine; zero fields are taken from the trace.
type Shape struct {
	Nodes  int
	Cores  int    // of each node
	Memory uint64 // bytes of each node
}

// DefaultMemoryPerCore stands in where neither trace nor caller say how much memory a node has.
const DefaultMemoryPerCore = 4 << 30

// Most is what a trace may have of nodes at most.
const Most = 1 << 20

// ErrEmpty says that a file holds no job that could be used.
var ErrEmpty = errors.New("no job in it could be used")

// fault is an error with its place.
func fault(file string, line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", file, line, fmt.Errorf(format, args...))
}

// lines calls do for each line with its number from 1.
func lines(file string, r io.Reader, do func(line int, text string) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 64<<10), 16<<20)
	n := 0
	for scanner.Scan() {
		n++
		if err := do(n, scanner.Text()); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fault(file, n+1, "%w", err)
	}
	return nil
}

// uniform returns count nodes alike.
func uniform(count, cores int, memory uint64) []Node {
	nodes := make([]Node, count)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprintf("n%05d", i+1), Cores: cores, Memory: memory}
	}
	return nodes
}

// memoryOf is the caller's word, or the rule's.
func (s Shape) memoryOf(cores int, notes *[]string) uint64 {
	if s.Memory > 0 {
		return s.Memory
	}
	*notes = append(*notes, fmt.Sprintf("The memory of nodes is not known; %d GiB per core are assumed.", uint64(DefaultMemoryPerCore)>>30))
	return uint64(cores) * DefaultMemoryPerCore
}

// sortJobs orders by start, then by place in the file.
func sortJobs(jobs []Job) {
	slices.SortStableFunc(jobs, func(a, b Job) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Line, b.Line)) })
}

// noteCount adds a sentence when it is about anything.
func noteCount(notes *[]string, count int, format string) {
	if count > 0 {
		*notes = append(*notes, fmt.Sprintf(format, count))
	}
}
