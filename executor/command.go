package executor

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Operations between supervisor and worker; they mirror enum gf_op of fabric/wire.h.
const (
	opAttach   = 1
	opDetach   = 2
	opLoaded   = 3
	opFailed   = 4
	opAttached = 5
	opWake     = 6
	opLoad     = 7
	opFabric   = 8
)

// loadNetwork, in key of opLoad, lets the function open sockets. exitAgain is the status of a sealed worker that was to open its
// endpoint and cannot any more: the next one opens it first.
const (
	loadNetwork = 1
	exitAgain   = 77
)

const (
	commandAddress = 256
	commandText    = 512
	commandBytes   = 64 + commandAddress + commandText
)

// command mirrors struct gf_command of fabric/wire.h.
type command struct {
	op, connection, carrier, slots uint32
	bufferBytes, cookie            uint64
	spinNS                         int64
	key, base                      uint64
	status                         uint32
	address                        []byte
	text                           string
}

func (c command) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, commandBytes)
	le.PutUint32(b[0:], c.op)
	le.PutUint32(b[4:], c.connection)
	le.PutUint32(b[8:], c.carrier)
	le.PutUint32(b[12:], c.slots)
	le.PutUint64(b[16:], c.bufferBytes)
	le.PutUint64(b[24:], c.cookie)
	le.PutUint64(b[32:], uint64(c.spinNS))
	le.PutUint64(b[40:], c.key)
	le.PutUint64(b[48:], c.base)
	le.PutUint32(b[56:], c.status)
	le.PutUint32(b[60:], uint32(copy(b[64:64+commandAddress], c.address)))
	copy(b[64+commandAddress:len(b)-1], c.text)
	return b
}

func decodeCommand(b []byte) (command, error) {
	if len(b) != commandBytes {
		return command{}, fmt.Errorf("command of %d bytes, want %d", len(b), commandBytes)
	}
	le := binary.LittleEndian
	c := command{
		op: le.Uint32(b[0:]), connection: le.Uint32(b[4:]), carrier: le.Uint32(b[8:]), slots: le.Uint32(b[12:]),
		bufferBytes: le.Uint64(b[16:]), cookie: le.Uint64(b[24:]), spinNS: int64(le.Uint64(b[32:])), key: le.Uint64(b[40:]), base: le.Uint64(b[48:]), status: le.Uint32(b[56:]),
	}
	size := le.Uint32(b[60:])
	if size > commandAddress {
		return c, fmt.Errorf("address of %d bytes, at most %d", size, commandAddress)
	}
	c.address = bytes.Clone(b[64 : 64+size])
	text := b[64+commandAddress:]
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	c.text = string(text)
	return c, nil
}
