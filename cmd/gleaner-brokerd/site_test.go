package main

import (
	"strings"
	"testing"
)

func TestFirstOrdinaryUID(t *testing.T) {
	for text, want := range map[string]uint32{
		"UID_MIN\t\t\t 1000\n":                        1000,
		"# UID_MIN 5\nSYS_UID_MAX 499\nUID_MIN 500\n": 500,
		"UID_MIN many\n":                              7,
		"UID_MIN 0\n":                                 7,
		"":                                            7,
	} {
		if got := uidMin(strings.NewReader(text), 7); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
