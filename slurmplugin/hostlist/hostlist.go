// Package hostlist reads and writes Slurm's compressed lists: node lists ("n[01-03,7],login", several brackets and nested suffixes
// such as "r[1-2]n[1-4]-ib"), number lists ("0-2,5") and counts per node ("8(x2),4"). It is pure and bounded: a list that would
// expand to more than Max entries is refused before it is expanded.
package hostlist

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Max is the number of entries beyond which a list is refused.
const Max = 1 << 17

// ErrSyntax is wrapped by every error about a malformed list.
var ErrSyntax = errors.New("malformed list")

// Expand returns the names of a node list in the order in which it gives them. Empty input gives none.
func Expand(list string) ([]string, error) {
	var names []string
	for len(list) > 0 {
		word, rest, err := cut(list)
		if err != nil {
			return nil, err
		}
		list = rest
		expanded, err := expandWord(word, Max-len(names))
		if err != nil {
			return nil, err
		}
		names = append(names, expanded...)
	}
	return names, nil
}

// cut takes the first word off list: up to a comma outside brackets.
func cut(list string) (word, rest string, err error) {
	inside := false
	for i := range len(list) {
		switch c := list[i]; {
		case c == '[' && !inside:
			inside = true
		case c == ']' && inside:
			inside = false
		case c == '[' || c == ']':
			return "", "", fmt.Errorf("%w: stray %q in %q", ErrSyntax, c, list)
		case c == ',' && !inside:
			if i == 0 || i == len(list)-1 {
				return "", "", fmt.Errorf("%w: empty name in %q", ErrSyntax, list)
			}
			return list[:i], list[i+1:], nil
		}
	}
	if inside {
		return "", "", fmt.Errorf("%w: bracket not closed in %q", ErrSyntax, list)
	}
	return list, "", nil
}

// expandWord multiplies the brackets of one word out, the leftmost varying slowest.
func expandWord(word string, most int) ([]string, error) {
	names := []string{""}
	for word != "" {
		open := strings.IndexByte(word, '[')
		literal := word
		if open >= 0 {
			literal = word[:open]
		}
		if i := strings.IndexFunc(literal, isBad); i >= 0 {
			return nil, fmt.Errorf("%w: %q in a name", ErrSyntax, literal[i:])
		}
		for i := range names {
			names[i] += literal
		}
		if open < 0 {
			break
		}
		closing := strings.IndexByte(word, ']')
		suffixes, err := ranges(word[open+1:closing], most)
		if err != nil {
			return nil, err
		}
		if names, err = product(names, suffixes, most); err != nil {
			return nil, err
		}
		word = word[closing+1:]
	}
	if len(names) > most {
		return nil, fmt.Errorf("%w: more than %d names", ErrSyntax, Max)
	}
	return names, nil
}

func isBad(r rune) bool {
	return r <= ' ' || r == 0x7f || r == '=' || r == '"' || r == '\'' || r == '\\'
}

func product(heads, tails []string, most int) ([]string, error) {
	if len(heads)*len(tails) > most {
		return nil, fmt.Errorf("%w: more than %d names", ErrSyntax, Max)
	}
	out := make([]string, 0, len(heads)*len(tails))
	for _, head := range heads {
		for _, tail := range tails {
			out = append(out, head+tail)
		}
	}
	return out, nil
}

// ranges expands what stands between brackets, keeping leading zeros: "01-03,7".
func ranges(text string, most int) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		low, high, width, err := span(part)
		if err != nil {
			return nil, err
		}
		if high-low >= uint64(most-len(out)) {
			return nil, fmt.Errorf("%w: more than %d names in [%s]", ErrSyntax, Max, text)
		}
		for n := low; n <= high; n++ {
			out = append(out, fmt.Sprintf("%0*d", width, n))
		}
	}
	return out, nil
}

// span reads "7" or "01-03".
func span(text string) (low, high uint64, width int, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	if low, err = number(first); err != nil {
		return 0, 0, 0, err
	}
	if high, err = number(last); err != nil {
		return 0, 0, 0, err
	}
	if high < low {
		return 0, 0, 0, fmt.Errorf("%w: range %q runs backwards", ErrSyntax, text)
	}
	return low, high, len(first), nil
}

// number takes digits only, at most 15 of them.
func number(text string) (uint64, error) {
	if len(text) == 0 || len(text) > 15 || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%w: %q is no number", ErrSyntax, text)
	}
	return strconv.ParseUint(text, 10, 64)
}
