package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reapStages takes away the zombies of starts that failed early. libcontainer's first stage makes the second one our child and tells
// its pid only when all went well; nobody else waits for it then. It is called after a failed start.
func reapStages() {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		children, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(children)) {
			stat, _ := os.ReadFile(filepath.Join("/proc", field, "stat"))
			if pid, err := strconv.Atoi(field); err == nil && bytes.Contains(stat, []byte("(runc:[1:CHILD]) Z ")) {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
	}
}
