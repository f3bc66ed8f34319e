// Package packing holds an example policy in Python; its test is the conformance suite.
package packing

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/plugin"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

// install lays the script and what protoc makes for it into a folder, as a site does.
func install(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("python3-grpcio and python3-protobuf are not here: %s", out)
	}
	protoc, err := exec.LookPath("protoc")
	if err != nil {
		t.Skip("protoc is not here: ", err)
	}
	dir := t.TempDir()
	api := filepath.Join("..", "..", "..", "api")
	if out, err := exec.Command(protoc, "-I", api, "--python_out="+dir, filepath.Join(api, "policies.proto")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path := filepath.Join(dir, "packing.py")
	in, err := os.Open("packing.py")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConforms(t *testing.T) {
	started := make(chan struct{}, 1)
	p, err := plugin.New(plugin.Config{Path: install(t), Started: func() { started <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Once(ctx) }()
	defer func() { stop(); <-ended }()
	select {
	case <-started:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("not started within a minute")
	}
	for _, r := range policytest.Conform(p, time.Minute, 100) {
		if r.Err != nil {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	}
	offers := []policies.Offer{
		{Node: "a", Resources: policies.Resources{Cores: 8, MemoryBytes: 8}}, {Node: "b", Executors: 1, Resources: policies.Resources{Cores: 2, MemoryBytes: 8}},
	}
	picks, err := p.Place(ctx, policies.Request{Executors: 3, Each: policies.Resources{Cores: 1, MemoryBytes: 1}}, offers)
	if err != nil || len(picks) != 3 || picks[0] != "b" || picks[1] != "b" || picks[2] != "a" {
		t.Errorf("picks %v, %v", picks, err)
	}
}
