// Package batch runs one function over many inputs and writes one result file for each: it plans which tasks are missing, runs
// them on a lease and sums up. A result is written under another name and renamed, so that a file that exists is whole; what exists
// is not run again unless asked for. It decides nothing about leases or executors; the command line calls it.
package batch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Item is one input and where its result goes.
type Item struct {
	Index  int    // position among the inputs, from 1
	Name   string // as the user wrote it: a path, or "line N"
	Output string
	path   string // of the file to read; "" for a line
	line   string
}

// Load reads the input.
func (i Item) Load() ([]byte, error) {
	if i.path == "" {
		return []byte(i.line), nil
	}
	return os.ReadFile(i.path)
}

// Files makes an item of each path, which must name a readable regular file.
func Files(paths []string) ([]Item, error) {
	items := make([]Item, 0, len(paths))
	var bad []error
	for n, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("input %s: %w", path, cause(err)))
		case info.IsDir():
			bad = append(bad, fmt.Errorf("input %s: is a folder; name the files in it, such as %s", path, filepath.Join(path, "*")))
		case !info.Mode().IsRegular():
			bad = append(bad, fmt.Errorf("input %s: is no regular file", path))
		}
		items = append(items, Item{Index: n + 1, Name: path, path: path})
	}
	return items, joinFirst(bad)
}

// cause is an error of a file without the call and the name, which the caller says.
func cause(err error) error {
	if at, ok := errors.AsType[*os.PathError](err); ok {
		return at.Err
	}
	return err
}

// Lines makes an item of each line of r that is not empty; line ends do not belong to the input.
func Lines(r io.Reader) ([]Item, error) {
	var items []Item
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 64<<20)
	for n := 1; scanner.Scan(); n++ {
		if line := strings.TrimSuffix(scanner.Text(), "\r"); line != "" {
			items = append(items, Item{Index: n, Name: fmt.Sprintf("line %d", n), line: line})
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read lines: %w", err)
	}
	return items, nil
}

// Plan is what a map has to do.
type Plan struct {
	Items   []Item // to be run
	Skipped int    // have their result already
	Largest int64  // bytes of the largest input among Items
}

// NewPlan gives each item its output after the template, and leaves out those that exist, unless force is set. It refuses a
// template by which two tasks would write the same file, one would overwrite an input, or one would leave the template's folder.
func NewPlan(items []Item, template string, force bool) (*Plan, error) {
	t, err := ParseTemplate(template)
	if err != nil {
		return nil, err
	}
	inputs := map[string]bool{}
	for _, item := range items {
		if item.path != "" {
			inputs[absolute(item.path)] = true
		}
	}
	p := &Plan{}
	owners := make(map[string]string, len(items))
	for _, item := range items {
		if item.Output, err = t.Expand(item); err != nil {
			return nil, err
		}
		key := absolute(item.Output)
		if other, taken := owners[key]; taken {
			return nil, fmt.Errorf("--out %s: %s and %s would both write %s; add {index} or {dir}", template, other, item.Name, item.Output)
		}
		if inputs[key] {
			return nil, fmt.Errorf("--out %s: the result of %s would overwrite the input %s", template, item.Name, item.Output)
		}
		owners[key] = item.Name
		if err := p.add(item, force); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Plan) add(item Item, force bool) error {
	info, err := os.Stat(item.Output)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("result %s: is a folder", item.Output)
	case err == nil && !force:
		p.Skipped++
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("result %w", err)
	}
	size := int64(len(item.line))
	if item.path != "" {
		if info, err := os.Stat(item.path); err == nil {
			size = info.Size()
		}
	}
	p.Largest = max(p.Largest, size)
	p.Items = append(p.Items, item)
	return nil
}

// MakeFolders makes the folders of the results, so that a map that could not write any stops before it runs.
func (p *Plan) MakeFolders() error {
	seen := map[string]bool{}
	for _, item := range p.Items {
		dir := filepath.Dir(item.Output)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("result folder: %w", err)
		}
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			return fmt.Errorf("result folder: write to %s: %w", dir, err)
		}
	}
	return nil
}

// MakeFolder makes the folder of a file that is written once all has run, so that a place where none can be stops before that.
func MakeFolder(file string) error {
	p := Plan{Items: []Item{{Output: file}}}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return fmt.Errorf("%s: is a folder", file)
	}
	return p.MakeFolders()
}

// Write puts data into path in one step: whoever finds the file finds all of it. Missing folders are made.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("result folder: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".gleaner-*")
	if err != nil {
		return fmt.Errorf("result file: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o666&^umask()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Clean(path)
}

// joinFirst joins at most ten errors and counts the rest.
func joinFirst(errs []error) error {
	const show = 10
	if len(errs) > show {
		errs = append(errs[:show:show], fmt.Errorf("and %d more", len(errs)-show))
	}
	return errors.Join(errs...)
}
