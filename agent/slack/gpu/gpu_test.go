package gpu

import (
	"errors"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/agent/slack"
)

// device is a GPU as the mock knows it.
func device(minor int, uuid string, busy uint32, mig int) *mock.Device {
	return &mock.Device{
		GetMinorNumberFunc: func() (int, nvml.Return) { return minor, nvml.SUCCESS },
		GetUUIDFunc:        func() (string, nvml.Return) { return uuid, nvml.SUCCESS },
		GetMemoryInfoFunc:  func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: 80, Used: 7}, nvml.SUCCESS },
		GetMigModeFunc: func() (int, int, nvml.Return) {
			if mig < 0 {
				return 0, 0, nvml.ERROR_NOT_SUPPORTED
			}
			return mig, mig, nvml.SUCCESS
		},
		GetUtilizationRatesFunc: func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: busy}, nvml.SUCCESS },
		GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
			return make([]nvml.ProcessInfo, 2), nvml.SUCCESS
		},
	}
}

func library(devices ...*mock.Device) *mock.Interface {
	return &mock.Interface{
		InitFunc:           func() nvml.Return { return nvml.SUCCESS },
		ShutdownFunc:       func() nvml.Return { return nvml.SUCCESS },
		DeviceGetCountFunc: func() (int, nvml.Return) { return len(devices), nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (nvml.Device, nvml.Return) {
			return devices[i], nvml.SUCCESS
		},
	}
}

func TestRead(t *testing.T) {
	r, err := Open(library(device(1, "one", 35, nvml.DEVICE_MIG_DISABLE), device(0, "zero", 10, nvml.DEVICE_MIG_ENABLE), device(2, "old", 0, -1)),
		[]string{"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	want := []slack.GPU{
		{Index: 0, UUID: "zero", Utilization: 1, MemoryUsed: 7, MemoryTotal: 80, Processes: 2, MIG: true},
		{Index: 1, UUID: "one", Utilization: 0.35, MemoryUsed: 7, MemoryTotal: 80, Processes: 2},
		{Index: 2, UUID: "old", Utilization: 0, MemoryUsed: 7, MemoryTotal: 80, Processes: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenFails(t *testing.T) {
	absent := library()
	absent.InitFunc = func() nvml.Return { return nvml.ERROR_LIBRARY_NOT_FOUND }
	for name, test := range map[string]struct {
		library Library
		file    string
	}{
		"no library": {absent, "/dev/nvidia0"}, "another GPU": {library(device(1, "", 0, 0)), "/dev/nvidia0"}, "no GPU's file": {library(), "/dev/null"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(test.library, []string{test.file}); !errors.Is(err, ErrNotFound) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDriverGone(t *testing.T) {
	d := device(0, "", 0, 0)
	r, err := Open(library(d), []string{"/dev/nvidia0"})
	if err != nil {
		t.Fatal(err)
	}
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	if _, err := r.Read(); err == nil {
		t.Error("a lost GPU is no error")
	}
}
