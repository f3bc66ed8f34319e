package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
	"github.com/gleaner-hpc/gleaner/agent/launch"
)

// devicesAgain is the time between looks at device files that are not there: drivers make them late.
const devicesAgain = time.Minute

// companions are the device files that the driver of a GPU needs beside the GPU's own, by what the name of that begins with: for NVIDIA
// as its container toolkit gives them, for AMD as ROCm's documentation says. Those that a node lacks are left out.
var companions = []struct {
	gpu    string
	beside []string
}{
	{"/dev/nvidia", []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}},
	{"/dev/dri/renderD", []string{"/dev/kfd"}},
}

// deviceFiles are what an executor with these GPUs is given; there says why a file cannot be.
func deviceFiles(gpus []string, there func(path string) error) []string {
	files := slices.Clone(gpus)
	for _, c := range companions {
		if !slices.ContainsFunc(gpus, func(path string) bool { return strings.HasPrefix(path, c.gpu) }) {
			continue
		}
		for _, path := range c.beside {
			if there(path) == nil {
				files = append(files, path)
			}
		}
	}
	return files
}

// devices are the GPUs that the launcher does not give.
type devices struct {
	refused  map[int]string // GPU → the launcher's own words, until it is started again
	withheld map[int]string // GPU → why: those, and the ones whose device files no launcher gives
	logged   map[int]string // what has been said of each
	next     time.Time      // another look is due; zero: never
}

// lookAtDevices brings what the ledger offers in line with the device files and with what the launcher has said.
func (l *loop) lookAtDevices(now time.Time) {
	d := &l.devices
	before := d.withheld
	d.withheld, d.next = maps.Clone(d.refused), time.Time{}
	for gpu, path := range l.cfg.Devices {
		if err := launch.CheckDevice(path); err != nil {
			d.withheld[gpu], d.next = err.Error(), now.Add(devicesAgain)
		}
	}
	if maps.Equal(before, d.withheld) {
		return
	}
	l.ledger.Withhold(coreset.Of(slices.Collect(maps.Keys(d.withheld))...))
	for _, gpu := range slices.Sorted(maps.Keys(d.withheld)) {
		if d.logged[gpu] != d.withheld[gpu] {
			d.logged[gpu] = d.withheld[gpu]
			l.log.Warn("GPU is not lent: see node.gpus in agent.toml, and the launcher's --device", "gpu", gpu, "reason", d.withheld[gpu])
		}
	}
	l.changed(now)
}

// deviceRefused withholds the GPUs of an executor whose device files the launcher has refused. It does not say which.
func (l *loop) deviceRefused(e *executor, err error, now time.Time) {
	refused, ok := errors.AsType[*launch.RefusedError](err)
	held, known := l.ledger.Executor(e.id)
	if !ok || !known || !errors.Is(err, launch.ErrDevices) {
		return
	}
	for _, gpu := range held.GPUs.Numbers() {
		l.devices.refused[gpu] = fmt.Sprintf("the launcher refuses %s: %s", l.cfg.Devices[gpu], refused.Reason)
	}
	l.lookAtDevices(now)
	l.sendState(now) // before the executor's end: the broker then knows whether any node is left for the lease
}

// note says what is not lent here although the node has it; "" for nothing.
func (l *loop) note() string {
	if len(l.devices.withheld) == 0 {
		return ""
	}
	gpus := slices.Sorted(maps.Keys(l.devices.withheld))
	return fmt.Sprintf("%d of %d GPUs not lent: %s", len(gpus), len(l.cfg.Devices), l.devices.withheld[gpus[0]])
}
