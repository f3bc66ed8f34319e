package invoke

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onProcessor runs do on a thread that is kept on the first processor that this process may use, or on the last. What do starts
// stays there. Executors have cores of their own; here they are kept apart from their callers by this.
func onProcessor(last bool, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return do()
	}
	chosen := -1
	for i := range len(all) * 64 {
		if all.IsSet(i) && (chosen < 0 || last) {
			chosen = i
		}
	}
	one.Set(chosen)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return do()
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	return do()
}
