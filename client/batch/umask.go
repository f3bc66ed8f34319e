package batch

import (
	"os"
	"sync"
	"syscall"
)

// umask reads the process's file mode mask, once: the only way is to set it, for a moment, to something that lets nobody else in.
var umask = sync.OnceValue(func() os.FileMode {
	old := syscall.Umask(0o077)
	syscall.Umask(old)
	return os.FileMode(old)
})
