package libgleaner

import (
	"debug/elf"
	"slices"
	"strings"
	"testing"
)

// The library shows its own functions and nothing else, under a name that tells incompatible versions apart.
func TestExports(t *testing.T) {
	f, err := elf.Open(binary(t, "build/lib/libgleaner.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if names, err := f.DynString(elf.DT_SONAME); err != nil || !slices.Equal(names, []string{"libgleaner.so.1"}) {
		t.Errorf("SONAME %v, %v", names, err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF || s.Name == "GLEANER_1" {
			continue
		}
		count++
		if !strings.HasPrefix(s.Name, "gleaner_") || s.Name == "gleaner_enter" || s.Name == "gleaner_leave" {
			t.Errorf("exports %s", s.Name)
		}
	}
	if count != 20 {
		t.Errorf("%d functions, gleaner.h declares 20", count)
	}
}
