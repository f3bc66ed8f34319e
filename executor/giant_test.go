package executor_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	wire "github.com/gleaner-hpc/gleaner/api/executor"
	"github.com/gleaner-hpc/gleaner/fabric"
)

// availableBytes is what the machine could give away.
func availableBytes(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skip("cannot see how much memory there is: ", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// A payload of 1 GiB goes to the function and comes back, over each carrier.
func TestGiantPayloads(t *testing.T) {
	const size, need = 1 << 30, 6 << 30
	if testing.Short() {
		t.Skip("1 GiB each way takes seconds")
	}
	for _, carrier := range carriers {
		t.Run(carrier, func(t *testing.T) {
			if free := availableBytes(t); free < need {
				t.Skipf("%d MiB of memory are available, %d MiB are needed", free>>20, need>>20)
			}
			b := start(t, "functions.so", func(a *wire.Assign) { a.BufferBytes = size })
			c, err := b.dial(fabric.Options{Carrier: carrier, BufferBytes: size, Slots: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer closeQuietly(c)
			payload, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				t.Skip("cannot allocate 1 GiB: ", err)
			}
			defer func() { _ = unix.Munmap(payload) }()
			for at := 0; at < size; at += 4096 { // every page says which it is
				putPage(payload[at:], at)
			}
			patient, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // some seconds, where nothing else runs
			defer cancel()
			began := time.Now()
			n, err := c.Invoke(patient, payload, payload, 0) // the result takes the place of what was sent
			took := time.Since(began)
			var function *fabric.FunctionError
			if errors.As(err, &function) && function.Signal == int(unix.SIGKILL) {
				t.Skip("killed: the memory that was available has gone meanwhile")
			}
			if err != nil || n != size {
				t.Fatalf("%d bytes, %v", n, err)
			}
			for at := 0; at < size; at += 4096 {
				if !isPage(payload[at:], at) {
					t.Fatalf("page at byte %d is not the inverse of what was sent", at)
				}
			}
			t.Logf("1 GiB there and back in %v", took.Round(time.Millisecond))
		})
	}
}

// putPage marks a page of a request, isPage knows it inverted.
func putPage(page []byte, at int) {
	page[0] = 'v'
	for i := range 4 {
		page[1+i], page[4095-i] = byte(at>>(12+8*i)), byte(at>>(12+8*i))
	}
}

func isPage(page []byte, at int) bool {
	for i := range 4 {
		if want := ^byte(at >> (12 + 8*i)); page[1+i] != want || page[4095-i] != want {
			return false
		}
	}
	return page[0] == 0xff-'v'
}
