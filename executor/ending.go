package executor

import (
	"fmt"
	"syscall"
)

// Kinds of the control protocol; fabric.Kind in the client.
const (
	kindCrashed        = 1
	kindDeadline       = 2
	kindResultTooLarge = 3
	kindUnknownSymbol  = 4
	kindLoadFailed     = 5
	kindExited         = 6
)

// ending is how a request, or the loading of a library, ended.
type ending struct {
	kind   uint32
	signal uint32
	text   string
}

// What a function wrote to and may not; they mirror GF_FAULT_ of fabric/wire.h.
const (
	faultResult = 1
	faultState  = 2
)

// overwritten is the end of a worker whose function wrote to the page that it shares with the supervisor.
func overwritten() ending {
	return ending{kind: kindCrashed, text: "the function wrote over its executor's state"}
}

// diagnose says why a worker ended. doomed is why the supervisor has killed it, if it has; fault is what the function wrote to and
// may not.
func diagnose(status syscall.WaitStatus, doomed *ending, fault uint32) ending {
	switch {
	case doomed != nil:
		return *doomed
	case status.Exited() && fault == faultState:
		return overwritten()
	case status.Signaled() && fault == faultResult && status.Signal() == syscall.SIGSEGV:
		return ending{kind: kindResultTooLarge, text: "the function wrote behind its result buffer"}
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return ending{kind: kindCrashed, signal: uint32(syscall.SIGKILL), text: "killed, most likely for exceeding the executor's memory"}
	case status.Signaled():
		return ending{kind: kindCrashed, signal: uint32(status.Signal())}
	}
	return ending{kind: kindExited, text: fmt.Sprintf("exit status %d", status.ExitStatus())}
}

// whileLoading puts an ending into the words of one that waits for the library.
func (e ending) whileLoading() ending {
	if e.text == "" {
		e.text = "while the library was being loaded"
	} else {
		e.text += ", while the library was being loaded"
	}
	return e
}
