// Package machine reads what the node is made of: its CPUs by socket and core, and its memory. It maps Slurm's abstract cores to
// CPU numbers: abstract core n is the n-th core when the machine's are sorted by socket and core.
package machine

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Machine is what was found.
type Machine struct {
	Cores  [][]int // CPU numbers of each core, in Slurm's order of cores
	CPUs   int
	Memory uint64 // bytes
}

const cpuFolder = "sys/devices/system/cpu"

// Read looks at /sys and /proc below root. A set that is not empty limits it to the CPUs that the process may use.
func Read(root fs.FS, allowed coreset.Set) (*Machine, error) {
	online, err := numbers(root, path.Join(cpuFolder, "online"))
	if err != nil {
		return nil, fmt.Errorf("read the machine's CPUs: %w", err)
	}
	if !allowed.Empty() {
		online = online.And(allowed)
	}
	type place struct{ socket, core int }
	cores := map[place][]int{}
	for _, cpu := range online.Numbers() {
		folder := path.Join(cpuFolder, "cpu"+strconv.Itoa(cpu), "topology")
		socket, err := number(root, path.Join(folder, "physical_package_id"))
		core, err2 := number(root, path.Join(folder, "core_id"))
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("read the topology of CPU %d: %w", cpu, err)
		}
		at := place{max(socket, 0), core} // some virtual machines say -1
		cores[at] = append(cores[at], cpu)
	}
	places := make([]place, 0, len(cores))
	for at := range cores {
		places = append(places, at)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.socket, b.socket), cmp.Compare(a.core, b.core))
	})
	m := &Machine{CPUs: online.Len()}
	for _, at := range places {
		m.Cores = append(m.Cores, cores[at])
	}
	if m.CPUs == 0 {
		return nil, errors.New("read the machine's CPUs: none is online and allowed")
	}
	m.Memory, err = memory(root)
	return m, err
}

func memory(root fs.FS) (uint64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(fields[1], 10, 53)
			return kib << 10, err
		}
	}
	return 0, errors.New("read the machine's memory: /proc/meminfo has no MemTotal")
}

func number(root fs.FS, name string) (int, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func numbers(root fs.FS, name string) (coreset.Set, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	return coreset.Parse(strings.TrimSpace(string(text)))
}
