package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gleaner-hpc/gleaner/simulate/trace"
)

// input reads traces from files.
type input struct {
	format  string // swf, sacct, snapshots; "" finds out
	machine string // file; "": none
	window  trace.Window
	shape   trace.Shape
	seed    uint64
}

// read reads one trace, or the snapshots of all files.
func (in input) read(names []string) (*trace.Trace, error) {
	var files []string
	for _, name := range names {
		if found, _ := filepath.Glob(filepath.Join(name, "*.csv*")); len(found) > 0 {
			files = append(files, found...)
			continue
		}
		files = append(files, name)
	}
	var snapshots []trace.Snapshot
	for _, name := range files {
		t, more, err := in.file(name)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		if t != nil && len(files) > 1 {
			return nil, usage("%s: one trace at a time; only snapshots may come in several files", name)
		}
		if t != nil {
			return t, nil
		}
		snapshots = append(snapshots, more...)
	}
	t, err := trace.FromSnapshots(names[0], snapshots, in.shape, in.seed)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return t, nil
}

// file reads a trace, or snapshots that are part of one.
func (in input) file(name string) (*trace.Trace, []trace.Snapshot, error) {
	r, closeFile, err := open(name)
	if err != nil {
		return nil, nil, err
	}
	defer closeFile()
	format := in.format
	if format == "" {
		head, _ := r.Peek(4096)
		if format = recognize(head); format == "" {
			return nil, nil, fmt.Errorf("%s:1: neither a Standard Workload Format log, nor sacct --parsable2 with its heading, nor snapshots; say which with --format", name)
		}
	}
	switch format {
	case "swf":
		t, err := trace.ReadSWF(name, r, in.shape)
		return t, nil, err
	case "snapshots":
		s, err := trace.ReadSnapshots(name, r)
		return nil, s, err
	case "sacct":
		nodes, err := in.nodes()
		if err != nil {
			return nil, nil, err
		}
		t, err := trace.ReadSacct(name, r, time.Local, in.window, nodes, in.shape)
		return t, nil, err
	}
	return nil, nil, fmt.Errorf("--format %s: want swf, sacct or snapshots", format)
}

func (in input) nodes() ([]trace.Node, error) {
	if in.machine == "" {
		return nil, nil
	}
	r, closeFile, err := open(in.machine)
	if err != nil {
		return nil, err
	}
	defer closeFile()
	return trace.ReadNodes(in.machine, r)
}

// open opens a file, decompressing it when it is compressed.
func open(name string) (*bufio.Reader, func(), error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	closeFile := func() { _ = file.Close() }
	r := bufio.NewReaderSize(file, 64<<10)
	if magic, _ := r.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return r, closeFile, nil
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		closeFile()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return bufio.NewReaderSize(io.Reader(z), 64<<10), closeFile, nil
}

// recognize finds out the format from the first lines.
func recognize(head []byte) string {
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.Contains(line, "idle_nodes"):
			return "snapshots"
		case strings.Contains(strings.ToLower("|"+line+"|"), "|start|"):
			return "sacct"
		case strings.HasPrefix(line, ";"), len(strings.Fields(line)) == 18:
			return "swf"
		default:
			return ""
		}
	}
	return ""
}
