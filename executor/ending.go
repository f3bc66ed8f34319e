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

// diagnose says why a worker ended. doomed is why the supervisor has killed it, if it has; guard says that the function wrote
// behind its result buffer.
func diagnose(status syscall.WaitStatus, doomed *ending, guard bool) ending {
	switch {
	case doomed != nil:
		return *doomed
	case status.Signaled() && guard && status.Signal() == syscall.SIGSEGV:
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
