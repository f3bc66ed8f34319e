package session

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/gleaner-hpc/gleaner/api"
)

// maxRecords bounds an outbox; the oldest are dropped beyond it, and counted.
const maxRecords = 4096

// Outbox keeps records (ended, claim, job ended) until the broker has stored them. Numbers grow by one and belong to its boot id; an outbox
// that is stored and read back goes on with both, so that a record is neither lost nor counted twice when an agent restarts.
// It is owned by one goroutine.
type Outbox struct {
	BootID  string
	Last    uint64 // number of the latest record
	Dropped uint64 // records given up because the broker was away for too long

	records []*api.AgentMessage // unacknowledged, in order
}

// Add numbers a record and keeps it.
func (o *Outbox) Add(m *api.AgentMessage) *api.AgentMessage {
	o.Last++
	m.Record = o.Last
	o.records = append(o.records, m)
	if len(o.records) > maxRecords {
		o.records = o.records[1:]
		o.Dropped++
	}
	return m
}

// Ack drops a record and all before it. It reports whether there was any.
func (o *Outbox) Ack(record uint64) bool {
	n := 0
	for n < len(o.records) && o.records[n].GetRecord() <= record {
		n++
	}
	o.records = append([]*api.AgentMessage(nil), o.records[n:]...)
	return n > 0
}

// Pending lists what is not acknowledged.
func (o *Outbox) Pending() []*api.AgentMessage { return append([]*api.AgentMessage(nil), o.records...) }

type storedOutbox struct {
	BootID  string   `json:"boot_id"`
	Last    uint64   `json:"last"`
	Dropped uint64   `json:"dropped,omitempty"`
	Records [][]byte `json:"records,omitempty"` // encoded AgentMessages
}

// MarshalJSON writes the outbox for a state file.
func (o *Outbox) MarshalJSON() ([]byte, error) {
	s := storedOutbox{BootID: o.BootID, Last: o.Last, Dropped: o.Dropped}
	for _, m := range o.records {
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode record %d: %w", m.GetRecord(), err)
		}
		s.Records = append(s.Records, b)
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *Outbox) UnmarshalJSON(b []byte) error {
	var s storedOutbox
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*o = Outbox{BootID: s.BootID, Last: s.Last, Dropped: s.Dropped}
	for _, encoded := range s.Records {
		m := &api.AgentMessage{}
		if err := proto.Unmarshal(encoded, m); err != nil {
			return fmt.Errorf("decode record: %w", err)
		}
		o.records = append(o.records, m)
	}
	return nil
}
