// Package gate is the contract between what slurmstepd and slurmd run on a node (the SPANK gate, the Prolog and Epilog hook) and
// the agent: one frame to the agent's Unix stream socket, at most two back. The C side is slurmplugin/frame.h; both are held to
// the byte vectors in testdata.
//
// A frame is little-endian:
//
//	offset size
//	0      4    magic "GLG1"
//	4      2    kind
//	6      2    flags
//	8      4    length of the whole frame, at most MaxFrame
//	12     4    job id
//	16     4    step id (0xfffffffb for the batch step, 0xfffffffc for the extern step, 0xfffffffe from Prolog and Epilog, which belong to none)
//	20     4    uid of the job
//	24     8    memory in MiB allocated to the job on this node; MemoryUnknown when it cannot be known
//	32     8    in a Claim, Warn or Release: CLOCK_REALTIME ns when the sender started; in an answer: ns spent since the claim was read
//	40     4    in an answer: executors evicted
//	44     2    length of the core list
//	46     2    length of the GPU list
//	48     2    length of the node name
//	50     2    reserved, 0
//	52     …    core list, GPU list, node name: ASCII, no terminator
//
// The core list holds Slurm's abstract core numbers ("0-2,5"); empty means they cannot be known and everything harvested on the
// node has to go. The GPU list holds GRES indexes ("0,1"); empty means none.
package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Kind says what a frame asks or answers.
type Kind uint16

const (
	// Claim asks for a job's resources. The agent answers Ack as soon as it has read it, and Done when nothing harvested
	// overlaps it. A claim may be repeated (each step of a job, a Prolog that runs twice): the second is answered at once.
	Claim Kind = 1
	// Warn announces a job whose cores are not known yet: the agent stops admitting on the node until a Claim, a Release or its
	// own timeout follows. GPUs named in it are claimed. Answered with Ack only.
	Warn Kind = 2
	// Release says that a job has left the node. Answered with Done.
	Release Kind = 3
	// Ping asks whether the agent's event loop turns. Answered with Done.
	Ping Kind = 4
	// Ack says that a claim has been read and is worked on.
	Ack Kind = 16
	// Done says that a claim's resources are free.
	Done Kind = 17
	// Failed says that the agent could not free everything; the sender uses force.
	Failed Kind = 18
)

// Flags of a frame. 1 and 2 stand for nothing.
const (
	// FlagBlunt on a Claim says that it comes from a Prolog at a site without the gate: no cores are known, everything goes.
	FlagBlunt uint16 = 4
	// FlagShareYes and FlagShareNo on a Claim are the job's --gleaner=yes|no; without either the site's default holds.
	FlagShareYes uint16 = 8
	FlagShareNo  uint16 = 16
	// FlagQuiet on an Ack says that the claim is in the ledger and no sandbox is being started: all that is harvested on the node is
	// in its cgroups. When these are empty there is nothing to wait for, though the agent cannot confirm it.
	FlagQuiet uint16 = 32
)

const (
	// HeaderSize is the length of a frame without its lists.
	HeaderSize = 52
	// MaxFrame bounds a frame; a longer one is refused unread.
	MaxFrame = 8192
	// MemoryUnknown stands for the node's whole memory.
	MemoryUnknown = ^uint64(0)
	// AckDeadline is how long a sender waits for Ack before it uses force; DoneDeadline how long for Done by default.
	AckDeadline  = 50 * time.Millisecond
	DoneDeadline = time.Second
)

// ErrFrame is wrapped by every error about a malformed frame.
var ErrFrame = errors.New("malformed gate frame")

// Frame is one message. Times and counts that a kind does not use are zero.
type Frame struct {
	Kind    Kind
	Flags   uint16
	Job     uint32
	Step    uint32
	UID     uint32
	MiB     uint64
	Nanos   uint64
	Evicted uint32
	Cores   string
	GPUs    string
	Node    string
}

const magic = "GLG1"

// Append encodes f behind b. It fails only when the lists are too long for one frame.
func (f *Frame) Append(b []byte) ([]byte, error) {
	size := HeaderSize + len(f.Cores) + len(f.GPUs) + len(f.Node)
	if size > MaxFrame {
		return b, fmt.Errorf("%w: %d bytes, at most %d", ErrFrame, size, MaxFrame)
	}
	le := binary.LittleEndian
	b = append(b, magic...)
	b = le.AppendUint16(b, uint16(f.Kind))
	b = le.AppendUint16(b, f.Flags)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, f.Job)
	b = le.AppendUint32(b, f.Step)
	b = le.AppendUint32(b, f.UID)
	b = le.AppendUint64(b, f.MiB)
	b = le.AppendUint64(b, f.Nanos)
	b = le.AppendUint32(b, f.Evicted)
	b = le.AppendUint16(b, uint16(len(f.Cores)))
	b = le.AppendUint16(b, uint16(len(f.GPUs)))
	b = le.AppendUint16(b, uint16(len(f.Node)))
	b = le.AppendUint16(b, 0)
	b = append(b, f.Cores...)
	b = append(b, f.GPUs...)
	return append(b, f.Node...), nil
}

// Read takes one frame from r. It reads no byte beyond it.
func Read(r io.Reader) (*Frame, error) {
	var buf [MaxFrame]byte
	head := buf[:HeaderSize]
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	size := le.Uint32(head[8:])
	if string(head[:4]) != magic || size < HeaderSize || size > MaxFrame {
		return nil, fmt.Errorf("%w: magic %q, length %d", ErrFrame, head[:4], size)
	}
	cores, gpus, node := int(le.Uint16(head[44:])), int(le.Uint16(head[46:])), int(le.Uint16(head[48:]))
	if HeaderSize+cores+gpus+node != int(size) {
		return nil, fmt.Errorf("%w: lists of %d+%d+%d bytes in a frame of %d", ErrFrame, cores, gpus, node, size)
	}
	lists := buf[HeaderSize:size]
	if _, err := io.ReadFull(r, lists); err != nil {
		return nil, fmt.Errorf("%w: cut short: %w", ErrFrame, err)
	}
	return &Frame{
		Kind: Kind(le.Uint16(head[4:])), Flags: le.Uint16(head[6:]),
		Job: le.Uint32(head[12:]), Step: le.Uint32(head[16:]), UID: le.Uint32(head[20:]),
		MiB: le.Uint64(head[24:]), Nanos: le.Uint64(head[32:]), Evicted: le.Uint32(head[40:]),
		Cores: string(lists[:cores]), GPUs: string(lists[cores : cores+gpus]), Node: string(lists[cores+gpus:]),
	}, nil
}
