package executor

import (
	"runtime"
	"sync"
)

// spares are the threads that the supervisor has in hand.
const spares = 4

// spareThreads has the runtime make threads now, which it keeps: once a function has forked as often as it may there are no more, and
// the runtime ends a program that needs one.
func spareThreads() {
	var ready sync.WaitGroup
	release := make(chan struct{})
	for range spares {
		ready.Add(1)
		go func() {
			runtime.LockOSThread() // so that each has one to itself
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		}()
	}
	ready.Wait()
	close(release)
}
