// Command tally adds up what the parts of `make test` said. Its arguments are files: *.json in test2json's form, others in TAP's
// (`ok`, `not ok`, `ok … # SKIP reason`). It prints what failed, what was skipped and why, and as its last line the sum. Exit status
// is 1 when anything failed or a part said nothing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

type sum struct {
	passed          int
	failed, skipped []string
}

func main() {
	var s sum
	for _, path := range os.Args[1:] {
		if err := s.add(path); err != nil {
			s.failed = append(s.failed, err.Error())
		}
	}
	s.write(os.Stdout)
	if len(s.failed) > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

func (s *sum) write(w io.Writer) {
	for _, line := range s.skipped {
		fmt.Fprintln(w, "skipped:", line)
	}
	for _, line := range s.failed {
		fmt.Fprintln(w, "FAILED:", line)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skipped))
}

func (s *sum) add(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	before := s.passed + len(s.failed) + len(s.skipped)
	if filepath.Ext(path) == ".json" {
		err = s.addJSON(file)
	} else {
		err = s.addTAP(file, filepath.Base(path))
	}
	if err == nil && before == s.passed+len(s.failed)+len(s.skipped) {
		err = fmt.Errorf("%s: no test reported anything", path)
	}
	return err
}

type event struct {
	Action, Package, Test, Output string
	FailedBuild                   string
}

// addJSON counts tests and subtests. A package that fails without a failing test of its own (it does not build, it exits) counts as
// one failure.
func (s *sum) addJSON(r io.Reader) error {
	said := map[string]string{}  // the last line of each running test
	failing := map[string]bool{} // packages with a failed test
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
		name := e.Package + " " + e.Test
		switch {
		case e.Action == "output" && e.Test != "":
			if line := strings.TrimSpace(e.Output); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
				said[name] = line
			}
		case e.Action == "pass" && e.Test != "":
			s.passed++
		case e.Action == "skip" && e.Test != "":
			s.skipped = append(s.skipped, short(name)+": "+said[name])
		case e.Action == "fail" && e.Test != "":
			failing[e.Package] = true
			s.failed = append(s.failed, short(name)+": "+said[name])
		case e.Action == "fail" && !failing[e.Package]:
			s.failed = append(s.failed, short(e.Package)+": the package failed")
		}
	}
}

// short leaves out the module's path.
func short(name string) string { return strings.TrimPrefix(name, "github.com/gleaner-hpc/gleaner/") }

// word says whether a line starts with a word and not with a longer one.
func word(line, w string) bool { return line == w || strings.HasPrefix(line, w+" ") }

func (s *sum) addTAP(r io.Reader, part string) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case word(line, "not ok"):
			s.failed = append(s.failed, part+": "+line)
		case word(line, "ok") && strings.Contains(strings.ToUpper(line), "# SKIP"):
			s.skipped = append(s.skipped, part+": "+line)
		case word(line, "ok"):
			s.passed++
		}
	}
	return lines.Err()
}
