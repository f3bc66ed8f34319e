// Package config reads Gleaner's TOML files, strictly: an unknown key, a value out of range or a missing one is an error with
// file and line that says what to write instead. It knows every key of every daemon, so that one command can check any file, and
// decides nothing about what the values do. The sample files in contrib/config name each key with its default.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Error is one finding in a file.
type Error struct {
	File string
	Line int // 0 when it concerns the whole file
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Check reads file as what its tables show it to be, an agent's or a broker's, and returns every finding, joined. It judges the file
// alone: what the environment of a daemon or caller adds is not there.
func Check(file string) error {
	var tables map[string]any
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if _, err := toml.Decode(string(text), &tables); err != nil {
		return located(file, err)
	}
	if isBroker(tables) {
		_, err = LoadBroker(file)
		return err
	}
	_, err = loadAgent(file, "", func(string) string { return "" })
	return err
}

// isBroker tells the two kinds of file apart: by tables that only one of them has, or by a [broker] table that configures one.
func isBroker(tables map[string]any) bool {
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { _, ok := tables[name]; return ok })
	}
	if has("node", "agent", "launcher", "executor", "fabric", "evict", "sandbox") {
		return false
	}
	if has("slurm", "policy", "limits", "audit", "allow", "deny", "limit") {
		return true
	}
	shared := map[string][]string{
		"broker": {"address", "munge_socket"}, "tls": {"ca_file", "server_name", "cert_file", "key_file"}, "identity": {"method", "token_file"},
	}
	for table, known := range shared {
		keys, _ := tables[table].(map[string]any)
		for key := range keys {
			if !slices.Contains(known, key) {
				return true
			}
		}
	}
	return false
}

// document is a decoded file whose values are being checked.
type document struct {
	file     string
	lines    map[string]int // dotted key → line
	findings []error
}

// decode reads file into v, which holds the defaults, and collects the keys that v does not know and the values that it cannot take.
func decode(file string, v any) (*document, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if _, err := toml.Decode(string(text), &map[string]any{}); err != nil {
		return nil, located(file, err)
	}
	doc := &document{file: file, lines: keyLines(string(text))}
	lines := strings.Split(string(text), "\n")
	meta, err := toml.Decode(string(text), v)
	for ; err != nil; meta, err = toml.Decode(strings.Join(lines, "\n"), v) {
		finding := located(file, err)
		doc.findings = append(doc.findings, finding)
		at, ok := errors.AsType[*Error](finding)
		if !ok || at.Line == 0 || lines[at.Line-1] == "" {
			return nil, doc.err()
		}
		lines[at.Line-1] = "" // the decoder stops at the first: on with the others
	}
	for _, key := range meta.Undecoded() {
		doc.reject(doc.place(key.String()), "unknown key %s; the sample file names every key there is", key)
	}
	return doc, nil
}

// place finds an unknown key of a [[table]], which the decoder names without saying of which, among those that have no finding yet.
func (d *document) place(key string) string {
	table, rest, _ := strings.Cut(key, ".")
	for n := 0; d.lines[fmt.Sprintf("%s[%d]", table, n)] > 0; n++ {
		at := fmt.Sprintf("%s[%d].%s", table, n, rest)
		if line := d.lines[at]; line > 0 && !d.found(line) {
			return at
		}
	}
	return key
}

func (d *document) found(line int) bool {
	return slices.ContainsFunc(d.findings, func(err error) bool { return lineOf(err) == line })
}

// reject notes a finding about a key, unless its line has one.
func (d *document) reject(key, format string, args ...any) {
	line := d.lines[key]
	if line > 0 && d.found(line) {
		return
	}
	d.findings = append(d.findings, &Error{d.file, line, fmt.Sprintf(format, args...)})
}

// require notes a finding unless ok.
func (d *document) require(ok bool, key, format string, args ...any) {
	if !ok {
		d.reject(key, key+": "+format, args...)
	}
}

func (d *document) err() error {
	slices.SortStableFunc(d.findings, func(a, b error) int { return cmp.Compare(lineOf(a), lineOf(b)) })
	return errors.Join(d.findings...)
}

func lineOf(err error) int {
	if at, ok := errors.AsType[*Error](err); ok {
		return at.Line
	}
	return 0
}

// located turns an error of the TOML decoder into an Error with its line. The decoder says it in a typed error for syntax and in
// words alone for types, in the same form.
func located(file string, err error) error {
	if m := decoderText.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		text := m[3]
		if types := decoderTypes.FindStringSubmatch(text); types != nil {
			text = fmt.Sprintf("incompatible types: got %s, want %s", typeName(types[1]), typeName(types[2]))
		}
		if strings.HasSuffix(text, `to end table name, but got '\n' instead`) {
			line-- // the decoder has gone on to the next
		}
		if m[2] != "" {
			text = m[2] + ": " + text
		}
		return &Error{file, line, text}
	}
	return &Error{File: file, Text: err.Error()}
}

// typeName is a type of Go in TOML's words.
func typeName(name string) string {
	switch name {
	case "int64", "int", "integer", "uint64", "uint32", "uint16":
		return "a number"
	case "slice", "[]interface {}", "[]any":
		return "a list, as in [\"a\", \"b\"]"
	case "bool":
		return "true or false"
	case "string":
		return "text in quotes"
	}
	return name
}

var decoderTypes = regexp.MustCompile(`^incompatible types: TOML value has type (.*); destination has type (.*)$`)

var decoderText = regexp.MustCompile(`^toml: line (\d+)(?: \(last key "([^"]+)"\))?: ((?s:.*))$`)

// keyLines finds the line of each table and key. It follows headers and `key =` at the start of lines, which is how these flat
// files are written; a key that it misses is reported without a line. The n-th [[table]] counts as "table[n]", from 0.
func keyLines(text string) map[string]int {
	lines, arrays := map[string]int{}, map[string]int{}
	table := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			line = strings.TrimSpace(strings.SplitN(line, "#", 2)[0])
			table = strings.Trim(line, "[] ")
			if strings.HasPrefix(line, "[[") {
				arrays[table]++
				table = fmt.Sprintf("%s[%d]", table, arrays[table]-1)
			}
			lines[table] = i + 1
			table += "."
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if key = strings.Trim(strings.TrimSpace(key), `"'`); ok && !strings.HasPrefix(key, "#") {
			lines[strings.TrimPrefix(table+key, ".")] = i + 1
		}
	}
	return lines
}
