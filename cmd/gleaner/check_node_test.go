package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gleaner-hpc/gleaner/config"
)

// TestCheckNode: what is missing is named in every form and by the exit status, until it is waived.
func TestCheckNode(t *testing.T) {
	bare := fstest.MapFS{}
	for _, output := range []string{"text", "csv", "json"} {
		var out bytes.Buffer
		a := &app{stdout: &out, output: output}
		var exit *exitError
		if err := a.checkNode(bare, nil); !errors.As(err, &exit) || exit.code != exitFailed || !strings.Contains(err.Error(), "see gleaner check node") {
			t.Errorf("%s: %v", output, err)
		}
		for _, name := range []string{config.GuardSeccomp, config.GuardIO, config.GuardNamespaces} {
			if !strings.Contains(out.String(), name) {
				t.Errorf("%s does not name %s: %s", output, name, &out)
			}
		}
		if output != "json" {
			continue
		}
		var document checkNodeJSON
		if err := json.Unmarshal(out.Bytes(), &document); err != nil || document.Lends || document.Schema != "gleaner.check-node/1" || !slices.Contains(document.Missing, config.GuardSeccomp) {
			t.Errorf("JSON %+v, %v", document, err)
		}
	}
	a := &app{stdout: &bytes.Buffer{}, output: "text"}
	if err := a.checkNode(bare, config.Guards); err != nil {
		t.Errorf("all is waived: %v", err)
	}
}
