package broker

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCut(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"plain":                        "plain",
		"two\nlines\x1b[31m":           "two lines [31m",
		strings.Repeat("é", maxText):   strings.Repeat("é", maxText/2),
		"x" + strings.Repeat("€", 999): "x" + strings.Repeat("€", (maxText-1)/3),
	} {
		if got := cut(text); got != want || !utf8.ValidString(got) {
			t.Errorf("%.20q: got %d bytes %.20q, want %d bytes", text, len(got), got, len(want))
		}
	}
}
