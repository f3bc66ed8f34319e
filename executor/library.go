package executor

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
)

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// soundLibrary refuses what the loader would crash on, or name worse: files that are no shared library, are for another machine, or end
// before their own headers say so.
func soundLibrary(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	lib, err := elf.NewFile(file)
	var bad *elf.FormatError
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("no shared library: %w", err)
	case err != nil:
		return fmt.Errorf("the library is cut short: its headers lie behind the last of its %d bytes", info.Size())
	case lib.Type != elf.ET_DYN:
		return fmt.Errorf("no shared library but %v: link with -shared", lib.Type)
	case lib.Machine != machines[runtime.GOARCH]:
		return fmt.Errorf("the library is for %v, this node is %v", lib.Machine, machines[runtime.GOARCH])
	}
	for _, p := range lib.Progs {
		if p.Type == elf.PT_LOAD && (p.Filesz > uint64(info.Size()) || p.Off > uint64(info.Size())-p.Filesz) {
			return fmt.Errorf("the library is cut short: it has %d bytes, and a segment ends at %d", info.Size(), p.Off+p.Filesz)
		}
	}
	return nil
}
