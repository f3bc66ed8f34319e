package batch

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Template names result files. Fields: {name} the input's file name, {stem} the same without extension, {ext} the extension with
// its dot, {dir} the input's folder, {index} the input's position from 1. Of a line, {name} and {stem} are its number. {{ and }}
// stand for braces.
type Template struct {
	text  string
	parts []part
	root  string // folder that results may not leave; unused when the template starts with {dir}
}

type part struct{ literal, field string }

// ParseTemplate reads a template.
func ParseTemplate(text string) (*Template, error) {
	t := &Template{text: text}
	rest := text
	for rest != "" {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			t.parts = append(t.parts, part{literal: rest})
			break
		}
		if i > 0 {
			t.parts = append(t.parts, part{literal: rest[:i]})
		}
		rest = rest[i:]
		if strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}") {
			t.parts = append(t.parts, part{literal: rest[:1]})
			rest = rest[2:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if rest[0] == '}' || end < 0 {
			return nil, fmt.Errorf("--out %s: unpaired brace; write {{ or }} for one in a file name", text)
		}
		t.parts = append(t.parts, part{field: rest[1:end]})
		rest = rest[end+1:]
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	t.root = filepath.Dir(t.leading() + "x")
	return t, nil
}

func (t *Template) check() error {
	if t.text == "" {
		return fmt.Errorf("--out is empty; write where results go, such as results/{stem}.out")
	}
	for _, p := range t.parts {
		switch p.field {
		case "", "name", "stem", "ext", "dir", "index":
			if p.field == "" && p.literal == "" {
				return fmt.Errorf("--out %s: {} names no field", t.text)
			}
		default:
			return fmt.Errorf("--out %s: no field {%s}; there are {name} {stem} {ext} {dir} {index}", t.text, p.field)
		}
	}
	return nil
}

// leading is the literal text before the first field.
func (t *Template) leading() string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.field != "" {
			break
		}
		b.WriteString(p.literal)
	}
	return b.String()
}

// Expand names the result of an item.
func (t *Template) Expand(item Item) (string, error) {
	fields := item.fields()
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.literal)
		b.WriteString(fields[p.field])
	}
	out := filepath.Clean(b.String())
	root := t.root
	if t.parts[0].field == "dir" {
		root = filepath.Clean(fields["dir"])
	}
	if !within(root, out) {
		return "", fmt.Errorf("--out %s: the result of %s would be %s, outside of %s", t.text, item.Name, out, root)
	}
	return out, nil
}

func (i Item) fields() map[string]string {
	index := strconv.Itoa(i.Index)
	if i.path == "" {
		return map[string]string{"name": index, "stem": index, "ext": "", "dir": ".", "index": index}
	}
	name := filepath.Base(i.path)
	ext := filepath.Ext(name)
	return map[string]string{"name": name, "stem": strings.TrimSuffix(name, ext), "ext": ext, "dir": filepath.Dir(i.path), "index": index}
}

// within says whether path lies below folder root, in words alone: both may not exist.
func within(root, path string) bool {
	rel, err := filepath.Rel(absolute(root), absolute(path))
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}
