package executor

import (
	"bytes"
	"testing"

	"github.com/gleaner-hpc/gleaner/api/jsonframe"
)

// FuzzFromExecutor: what comes from a sandbox reads as a frame, or as an error; the agent and the executor share the codec.
func FuzzFromExecutor(f *testing.F) {
	for _, frame := range []any{
		FromExecutor{Hello: &Hello{ID: "1-1"}}, FromExecutor{Ready: &Ready{Address: "h:1#x", Local: "/run/x"}},
		FromExecutor{Failed: &Failed{Error: "no"}}, FromExecutor{Refused: &Refused{Tokens: map[string]uint64{"forged": 1}}},
		FromAgent{Assign: &Assign{Executor: "1-1", Lease: 1, Digest: make([]byte, 32)}}, FromAgent{Revoke: &Revoke{Reason: "evicted", Grace: 1}},
	} {
		var wire bytes.Buffer
		if err := jsonframe.Write(&wire, frame); err != nil {
			f.Fatal(err)
		}
		f.Add(wire.Bytes())
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = jsonframe.Read(bytes.NewReader(b), &FromExecutor{})
		_ = jsonframe.Read(bytes.NewReader(b), &FromAgent{})
	})
}
