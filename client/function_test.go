package client

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSplitFunction(t *testing.T) {
	tests := map[string][2]string{
		"build/libthumbnailer.so:run":  {"build/libthumbnailer.so", "run"},
		"build/libthumbnailer.so":      {"build/libthumbnailer.so", "thumbnailer"},
		"blackscholes.so.1":            {"blackscholes.so.1", "blackscholes"},
		"/data:old/libf.so":            {"/data:old/libf.so", "f"},
		"/data:old/libf.so:g":          {"/data:old/libf.so", "g"},
		"./libf.so:":                   {"./libf.so", ""},
		"dir.with.dots/libsomething.x": {"dir.with.dots/libsomething.x", "something"},
	}
	for spec, want := range tests {
		if path, symbol := splitFunction(spec); path != want[0] || symbol != want[1] {
			t.Errorf("%s: got %s, %s", spec, path, symbol)
		}
	}
}

func TestLoadFunction(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler to build a library with")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "f.c")
	if err := os.WriteFile(source, []byte("unsigned f(void*a,unsigned n,void*r){return n;} static int hidden; int g(void){return hidden;}"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := func(name string, flags ...string) string {
		path := filepath.Join(dir, name)
		if out, err := exec.Command(cc, append(flags, "-o", path, source)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	library := build("libf.so", "-shared", "-fPIC")
	object := build("f.o", "-c")
	hidden := build("libhidden.so", "-shared", "-fPIC", "-fvisibility=hidden")

	f, err := LoadFunction(library)
	if err != nil {
		t.Fatal(err)
	}
	if f.Symbol != "f" || f.Name != "libf.so" || f.Digest != sha256.Sum256(f.Library) {
		t.Errorf("got %s in %s", f.Symbol, f.Name)
	}
	cut := func(name string, bytes int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, f.Library[:bytes], 0o600); err != nil {
			t.Fatal(err)
		}
		return path + ":f"
	}
	tests := map[string]struct{ spec, want string }{
		"empty":             {cut("empty.so", 0), "not an ELF file"},
		"cut in the magic":  {cut("magic.so", 3), "not an ELF file"},
		"cut in the header": {cut("header.so", 40), "cut short (it has 40 bytes)"},
		"cut in the middle": {cut("half.so", len(f.Library)/2), "cut short"},
		"cut at the end":    {cut("end.so", len(f.Library)-1), "cut short"},
		"no such symbol":    {library + ":h", `exports no function "h"`},
		"hidden":            {hidden + ":f", "exports no function at all"},
		"object file":       {object + ":f", "is no shared library"},
		"source":            {source + ":f", "not an ELF file"},
		"no file":           {filepath.Join(dir, "none.so:f"), "no such file"},
		"directory":         {dir + ":f", "want a regular file"},
		"bad symbol":        {library + ":f()", "is no C symbol"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := LoadFunction(test.spec); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever is in the file, the check says yes or why not.
func FuzzCheckLibrary(f *testing.F) {
	own, err := os.ReadFile("/proc/self/exe")
	if err == nil && len(own) > 4096 {
		f.Add(own[:4096])
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, library []byte) {
		if err := checkLibrary(library, "f"); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}
