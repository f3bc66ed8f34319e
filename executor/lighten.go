package executor

import (
	"bytes"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calmTime is how long the supervisor has had nothing to do when it lets go of its program.
const calmTime = 20 * time.Millisecond

// program is where this process's own file is mapped and never written to: its code and constants.
type program [][]byte

func ownProgram() (p program) {
	path, _ := os.Readlink("/proc/self/exe")
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range bytes.Lines(maps) {
		var start, end uintptr
		var rights, offset, device, inode, name string
		n, _ := fmt.Sscanf(string(line), "%x-%x %s %s %s %s %s", &start, &end, &rights, &offset, &device, &inode, &name)
		if n == 7 && name == path && rights[1] == '-' {
			p = append(p, unsafe.Slice((*byte)(unsafe.Add(nil, start)), end-start))
		}
	}
	return p
}

// lighten lets go of the program's pages, most of what is resident. Otherwise the kernel would unmap them while a job waits for the end
// of this process. What is needed again comes back from the page cache, in microseconds.
func (p program) lighten() {
	for _, part := range p {
		_ = unix.Madvise(part, unix.MADV_DONTNEED)
	}
}
