package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestCheckConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(file, []byte("[broker]\naddress = \"head\"\n\n[evict]\ngrace = 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, grace := `broker.address: "head"; want host:port`, "unknown key evict.grace; the sample file names every key there is"
	text := gleaner(t, nil, "", "check", "config", file)
	if want := file + ":2: " + address + "\n" + file + ":5: " + grace + "\n"; text.code != exitUsage || text.stderr != want {
		t.Errorf("exit %d, %q; want %q", text.code, text.stderr, want)
	}
	want := checkConfigJSON{"gleaner.check-config/1", file, []findingJSON{{file, 2, address}, {file, 5, grace}}}
	var got checkConfigJSON
	machine := gleaner(t, nil, "", "check", "config", file, "--output", "json")
	if err := json.Unmarshal([]byte(machine.stdout), &got); err != nil || machine.code != exitUsage || !reflect.DeepEqual(got, want) {
		t.Errorf("exit %d, %v; got %+v, want %+v", machine.code, err, got, want)
	}
	if none := gleaner(t, nil, "", "check", "config", file+".none"); none.code != exitUsage || none.stdout != "" {
		t.Errorf("no file: %+v", none)
	}
}
