package jsonframe

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

type message struct {
	Text string `json:"text"`
}

func TestFrames(t *testing.T) {
	var wire bytes.Buffer
	for _, text := range []string{"one", "", "three"} {
		if err := Write(&wire, message{text}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", "", "three"} {
		var got message
		if err := Read(&wire, &got); err != nil || got.Text != want {
			t.Errorf("got %q, %v; want %q", got.Text, err, want)
		}
	}
	if err := Read(&wire, &message{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v, want io.EOF", err)
	}
}

func TestRefusals(t *testing.T) {
	if err := Write(io.Discard, message{strings.Repeat("x", Max)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("writing too much: got %v", err)
	}
	for name, wire := range map[string]string{
		"two gigabytes": "\xff\xff\xff\x7f{}", "cut header": "\x02\x00", "cut body": "\x08\x00\x00\x00{}", "no JSON": "\x02\x00\x00\x00}{",
	} {
		if err := Read(strings.NewReader(wire), &message{}); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want an error that is not the end", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x0d\x00\x00\x00{\"text\":\"a\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got message
		if err := Read(bytes.NewReader(b), &got); err != nil {
			return
		}
		var wire bytes.Buffer
		var again message
		if err := errors.Join(Write(&wire, got), Read(&wire, &again)); err != nil || again != got {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	})
}
