// Package gpu reads what GPUs do, through NVIDIA's management library where the driver has brought it. It knows only the GPUs that
// agent.toml names; package slack carries what it reads.
package gpu

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gleaner-hpc/gleaner/agent/slack"
)

// Library is the part of the management library that is used. nvml.New returns one.
type Library interface {
	Init() nvml.Return
	Shutdown() nvml.Return
	DeviceGetCount() (int, nvml.Return)
	DeviceGetHandleByIndex(index int) (nvml.Device, nvml.Return)
}

// ErrNotFound is wrapped when the library is absent or knows no GPU of that name.
var ErrNotFound = errors.New("no such GPU")

// Reader reads the GPUs of one node. It is not safe for concurrent use.
type Reader struct {
	library Library
	devices []nvml.Device // by the index of node.gpus
}

// Open finds the GPUs of the device files, such as /dev/nvidia0, by their minor numbers.
func Open(library Library, files []string) (*Reader, error) {
	if r := library.Init(); r != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: NVIDIA's management library: %s", ErrNotFound, text(r))
	}
	byMinor := map[int]nvml.Device{}
	count, r := library.DeviceGetCount()
	for i := range count {
		device, result := library.DeviceGetHandleByIndex(i)
		if result != nvml.SUCCESS {
			r = result
			continue
		}
		if minor, result := device.GetMinorNumber(); result == nvml.SUCCESS {
			byMinor[minor] = device
		}
	}
	reader := &Reader{library: library}
	for _, file := range files {
		digits, ok := strings.CutPrefix(file, "/dev/nvidia")
		minor, err := strconv.Atoi(digits)
		device := byMinor[minor]
		if !ok || err != nil || device == nil {
			_ = library.Shutdown()
			return nil, fmt.Errorf("%w: %s is not one of the %d that the driver knows (%s)", ErrNotFound, file, count, text(r))
		}
		reader.devices = append(reader.devices, device)
	}
	return reader, nil
}

// Close lets go of the library.
func (r *Reader) Close() { _ = r.library.Shutdown() }

// Read returns what each GPU does, in the order of the device files. A GPU in MIG mode does not tell its utilization; it counts as busy.
func (r *Reader) Read() ([]slack.GPU, error) {
	gpus := make([]slack.GPU, len(r.devices))
	for i, device := range r.devices {
		g := slack.GPU{Index: i, Utilization: 1}
		g.UUID, _ = device.GetUUID()
		memory, result := device.GetMemoryInfo()
		if result != nvml.SUCCESS {
			return nil, fmt.Errorf("memory of GPU %d: %s", i, text(result))
		}
		g.MemoryUsed, g.MemoryTotal = memory.Used, memory.Total
		if mode, _, result := device.GetMigMode(); result == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
			g.MIG = true
		} else if rates, result := device.GetUtilizationRates(); result == nvml.SUCCESS {
			g.Utilization = float64(rates.Gpu) / 100
		}
		if running, result := device.GetComputeRunningProcesses(); result == nvml.SUCCESS {
			g.Processes = len(running)
		}
		gpus[i] = g
	}
	return gpus, nil
}

// text is what a result means; the library's own words need the library.
func text(r nvml.Return) string {
	if r == nvml.SUCCESS {
		return "no error"
	}
	if r == nvml.ERROR_LIBRARY_NOT_FOUND {
		return "the library is not installed"
	}
	return fmt.Sprintf("error %d", int32(r))
}
