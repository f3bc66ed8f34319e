package agent

import (
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/api"
)

// TestObjectionLendsNothing: a node that cannot keep functions in their place says why and starts none, and goes on answering jobs.
func TestObjectionLendsNothing(t *testing.T) {
	n := newNode(t)
	n.cfg.Objection = "sandboxes lack seccomp"
	n.run()
	n.up <- true
	n.broker.await(t, "state with the objection", func(m *api.AgentMessage) bool {
		return strings.Contains(m.GetState().GetWhyNot(), "sandboxes lack seccomp") && !m.GetState().GetAdmitting()
	})
	n.ask(start("7-1", 1, 64))
	ended := n.broker.await(t, "refusal", func(m *api.AgentMessage) bool { return m.GetEnded().GetId() == "7-1" }).GetEnded()
	if ended.GetReason() != api.EndReason_REFUSED || !strings.Contains(ended.GetDetail(), "sandboxes lack seccomp") {
		t.Errorf("ended: %v", ended)
	}
	if n.sandbox("7-1") != nil {
		t.Error("a sandbox was started all the same")
	}
}
