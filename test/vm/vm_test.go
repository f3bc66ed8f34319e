package vm

import "testing"

// TestSandboxOnV2 is the suite of executor/sandbox.
func TestSandboxOnV2(t *testing.T) { Suite(t, "./sandbox") }

// TestHostileOnV2 is test/hostile.
func TestHostileOnV2(t *testing.T) { Suite(t, "./hostile") }
