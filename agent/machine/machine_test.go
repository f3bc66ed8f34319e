package machine

import (
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// tree is a machine whose CPUs have the given {socket, core}.
func tree(places ...[2]int) fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	root := fstest.MapFS{
		"sys/devices/system/cpu/online": file(coreset.Range(0, len(places)).String()),
		"proc/meminfo":                  file("MemFree: 12 kB\nMemTotal:       2048 kB"),
	}
	for cpu, at := range places {
		root[fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu)] = file(fmt.Sprint(at[0]))
		root[fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/core_id", cpu)] = file(fmt.Sprint(at[1]))
	}
	return root
}

func TestRead(t *testing.T) {
	tests := map[string]struct {
		root    fstest.MapFS
		allowed coreset.Set
		want    Machine
	}{
		"one CPU, no package id": {tree([2]int{-1, 0}), nil, Machine{[][]int{{0}}, 1, 2 << 20}},
		"sockets alternate":      {tree([2]int{0, 0}, [2]int{1, 0}, [2]int{0, 1}, [2]int{1, 1}), nil, Machine{[][]int{{0}, {2}, {1}, {3}}, 4, 2 << 20}},
		"two threads per core":   {tree([2]int{0, 0}, [2]int{0, 1}, [2]int{0, 0}, [2]int{0, 1}), nil, Machine{[][]int{{0, 2}, {1, 3}}, 4, 2 << 20}},
		"core ids with gaps":     {tree([2]int{0, 9}, [2]int{0, 4}), nil, Machine{[][]int{{1}, {0}}, 2, 2 << 20}},
		"only some allowed":      {tree([2]int{0, 0}, [2]int{0, 1}, [2]int{0, 2}), coreset.Of(1, 2), Machine{[][]int{{1}, {2}}, 2, 2 << 20}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Read(test.root, test.allowed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Read(fstest.MapFS{}, nil); err == nil {
		t.Error("an empty tree is no machine")
	}
}
