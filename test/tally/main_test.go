package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	tests := map[string]struct {
		file, text string
		want       string
	}{
		"tap": {
			"a.tap", "TAP version 13\n1..4\nok 1 - first\nok 2 - second # SKIP no GPU\nnot ok 3 - third\nok 4\nokay\n",
			"skipped: a.tap: ok 2 - second # SKIP no GPU\nFAILED: a.tap: not ok 3 - third\n2 passed, 1 failed, 1 skipped\n",
		},
		"go": {
			"a.json", `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:1: needs root\n"}
{"Action":"output","Package":"p","Test":"A","Output":"--- SKIP: A (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"pass","Package":"p"}
`,
			"skipped: p A: a_test.go:1: needs root\n1 passed, 0 failed, 1 skipped\n",
		},
		"package fails to build": {
			"a.json", `{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
`,
			"FAILED: p: the package failed\n0 passed, 1 failed, 0 skipped\n",
		},
		"nothing said": {"a.json", "", "FAILED: DIR/a.json: no test reported anything\n0 passed, 1 failed, 0 skipped\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var s sum
			if err := s.add(path); err != nil {
				s.failed = append(s.failed, err.Error())
			}
			var b strings.Builder
			s.write(&b)
			if got := strings.ReplaceAll(b.String(), dir, "DIR"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}
