package executor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/fabric"
)

// clientLacks is set for the process that cannot load libfabric itself.
const clientLacks = "GLEANER_TEST_CLIENT_LACKS"

// TestWithoutLibfabric: where the library is missing, in the executor or in the client, the ring works and the other carrier says
// what is missing and what remains. A file that is no library stands in its place.
func TestWithoutLibfabric(t *testing.T) {
	if os.Getenv(clientLacks) != "" {
		lacking(t)
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libfabric.so.1"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("executor", func(t *testing.T) {
		before := built
		defer func() { built = before }()
		built = blind(t, dir)
		lacking(t)
	})
	t.Run("client", func(t *testing.T) {
		c := exec.Command(os.Args[0], "-test.run", "^TestWithoutLibfabric$")
		c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+dir, clientLacks+"=1", "GLEANER_TEST_BUILT="+built)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// blind is a folder like built, whose worker finds libraries in dir first. Workers get an environment of their own.
func blind(t *testing.T, dir string) string {
	to := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/worker \"$@\"\n", dir, built)
	if err := os.WriteFile(filepath.Join(to, "worker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"executor", "functions.so"} {
		if err := os.Link(filepath.Join(built, name), filepath.Join(to, name)); err != nil {
			t.Skip("the programs cannot be linked to: ", err)
		}
	}
	return to
}

func lacking(t *testing.T) {
	t.Helper()
	b := start(t, "functions.so")
	c := b.connect(fabric.Options{})
	if c.Carrier() != "ring" {
		t.Errorf("carrier %s", c.Carrier())
	}
	echo(t, c, 64)
	far, err := b.dial(fabric.Options{Carrier: "ofi"})
	if err == nil {
		_ = far.Close()
		t.Fatal("ofi without libfabric")
	}
	for _, want := range []string{"libfabric is not installed", "only the ring works"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	echo(t, c, 4096) // others go on
}
