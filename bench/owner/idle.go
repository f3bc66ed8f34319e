package owner

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Idle is what an agent without anything to do costs its node.
type Idle struct {
	Seconds  float64 `json:"seconds"`
	Percent  float64 `json:"percent_of_a_core"`
	Resident uint64  `json:"resident_bytes"`
	Within   bool    `json:"within"` // 0.1 % and 32 MiB
}

func watchAgent(ctx context.Context, socket string, length time.Duration) (*Idle, error) {
	pid, err := agentPID(socket)
	if err != nil {
		return nil, err
	}
	dir := "/proc/" + strconv.Itoa(pid)
	before, err := ran(dir)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(length):
	}
	after, err := ran(dir)
	if err != nil {
		return nil, err
	}
	idle := &Idle{Seconds: math.Round(time.Since(begin).Seconds()*10) / 10, Resident: resident(dir)}
	idle.Percent = math.Round(1e5*float64(after-before)/float64(time.Since(begin))) / 1e3
	idle.Within = idle.Percent <= 0.1 && idle.Resident <= 32<<20
	return idle, nil
}

// ran is how long the threads of a process have been on a core.
func ran(dir string) (time.Duration, error) {
	files, _ := filepath.Glob(filepath.Join(dir, "task", "*", "schedstat"))
	if len(files) == 0 {
		return 0, fmt.Errorf("read the agent's time on a core: nothing in %s/task", dir)
	}
	var sum time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		if fields := bytes.Fields(text); len(fields) > 0 {
			ns, _ := strconv.ParseInt(string(fields[0]), 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

func resident(dir string) uint64 {
	text, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, _ := strconv.ParseUint(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))), 10, 64)
			return kib << 10
		}
	}
	return 0
}
