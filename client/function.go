package client

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// MaxLibrary bounds a function's shared library in bytes.
const MaxLibrary = 256 << 20

// Function is code that executors can run: one symbol of a shared library that depends on nothing but what nodes have.
type Function struct {
	Name    string // for people: the library's file name
	Symbol  string
	Library []byte
	Digest  [sha256.Size]byte
}

var symbolName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// LoadFunction reads path/to/lib.so:symbol and checks it before anything runs: a shared library for this machine's architecture
// that exports the symbol. Without a symbol the file's base name stands for it, without "lib" and extension.
func LoadFunction(spec string) (*Function, error) {
	path, symbol := splitFunction(spec)
	if !symbolName.MatchString(symbol) {
		return nil, fmt.Errorf("function %s: %q is no C symbol; write PATH:SYMBOL", spec, symbol)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", spec, err)
	}
	if !info.Mode().IsRegular() || info.Size() > MaxLibrary {
		return nil, fmt.Errorf("function %s: want a regular file of at most %d MiB", spec, MaxLibrary>>20)
	}
	library, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", spec, err)
	}
	if err := checkLibrary(library, symbol); err != nil {
		return nil, fmt.Errorf("function %s: %w", spec, err)
	}
	return &Function{Name: truncate(filepath.Base(path), 128), Symbol: symbol, Library: library, Digest: sha256.Sum256(library)}, nil
}

func splitFunction(spec string) (path, symbol string) {
	if i := strings.LastIndexByte(spec, ':'); i > 0 && !strings.Contains(spec[i:], "/") {
		return spec[:i], spec[i+1:]
	}
	base := filepath.Base(spec)
	base, _, _ = strings.Cut(base, ".")
	return spec, strings.TrimPrefix(base, "lib")
}

func checkLibrary(library []byte, symbol string) error {
	if !bytes.HasPrefix(library, []byte(elf.ELFMAG)) {
		return errors.New("not an ELF file; build a shared library with cc -shared -fPIC")
	}
	f, err := elf.NewFile(bytes.NewReader(library))
	if err != nil || cutShort(f, len(library)) {
		return fmt.Errorf("an ELF file that is damaged or was cut short (it has %d bytes): build or copy it again", len(library))
	}
	defer f.Close()
	if f.Type != elf.ET_DYN {
		return fmt.Errorf("%s is no shared library; build it with cc -shared -fPIC", f.Type)
	}
	if want := machine(); f.Class != elf.ELFCLASS64 || f.Machine != want {
		return fmt.Errorf("built for %s, %s; the executors here are %s", f.Machine, f.Class, want)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return fmt.Errorf("read its symbols: %w", err)
	}
	var exported []string
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF || elf.ST_TYPE(s.Info) != elf.STT_FUNC || elf.ST_BIND(s.Info) == elf.STB_LOCAL {
			continue
		}
		if s.Name == symbol {
			return nil
		}
		exported = append(exported, s.Name)
	}
	return missingSymbol(symbol, exported)
}

// cutShort says whether parts of the file that its own tables name are missing.
func cutShort(f *elf.File, size int) bool {
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL && (s.Offset > uint64(size) || s.FileSize > uint64(size)-s.Offset) {
			return true
		}
	}
	for _, p := range f.Progs {
		if p.Off > uint64(size) || p.Filesz > uint64(size)-p.Off {
			return true
		}
	}
	return false
}

func missingSymbol(symbol string, exported []string) error {
	if len(exported) == 0 {
		return fmt.Errorf("exports no function at all; is %q static or of hidden visibility?", symbol)
	}
	const show = 8
	more := ""
	if len(exported) > show {
		exported, more = exported[:show], ", …"
	}
	return fmt.Errorf("exports no function %q (C++ needs extern \"C\"); it exports %s%s", symbol, strings.Join(exported, ", "), more)
}

func machine() elf.Machine {
	if runtime.GOARCH == "arm64" {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
