package slurmctld

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// slurmrestd's answers change form from version to version: numbers are plain, null or {set, infinite, number}; states are a string
// or a list; lists of nodes are text or an object. These types take every form.

// looseNumber is a count that is not negative. An absent, null, infinite or unset number is 0 with known false.
type looseNumber struct {
	value    uint64
	known    bool
	infinite bool
}

func (n *looseNumber) UnmarshalJSON(b []byte) error {
	*n = looseNumber{}
	switch {
	case len(b) == 0 || bytes.Equal(b, []byte("null")):
		return nil
	case b[0] == '{':
		var o struct {
			Set      *bool       `json:"set"`
			Infinite bool        `json:"infinite"`
			Number   json.Number `json:"number"`
		}
		if err := json.Unmarshal(b, &o); err != nil {
			return err
		}
		if o.Infinite || (o.Set != nil && !*o.Set) {
			n.infinite = o.Infinite
			return nil
		}
		n.parse(o.Number.String())
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		n.parse(s)
	default:
		n.parse(string(b))
	}
	return nil
}

func (n *looseNumber) parse(text string) {
	if value, err := strconv.ParseUint(text, 10, 64); err == nil {
		n.value, n.known = value, true
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 && f < math.MaxInt64 {
		n.value, n.known = uint64(f), true
	}
}

// int is the count, at most 2^24: nothing that Slurm counts per node is larger.
func (n looseNumber) int() int { return int(min(n.value, 1<<24)) }

// time is the moment that a number of seconds stands for.
func (n looseNumber) time() time.Time {
	if !n.known || n.value == 0 || n.value > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(n.value), 0).UTC()
}

// looseStrings is a string or a list of strings.
type looseStrings []string

func (s *looseStrings) UnmarshalJSON(b []byte) error {
	*s = nil
	switch {
	case len(b) == 0 || bytes.Equal(b, []byte("null")):
		return nil
	case b[0] == '[':
		return json.Unmarshal(b, (*[]string)(s))
	case b[0] == '"':
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		if one != "" {
			*s = strings.Split(one, ",")
		}
	}
	return nil
}

// looseList is a list, or an object whose keys are indexes.
type looseList[T any] []T

func (l *looseList[T]) UnmarshalJSON(b []byte) error {
	*l = nil
	switch {
	case len(b) == 0 || b[0] == '[':
		return json.Unmarshal(b, (*[]T)(l))
	case b[0] == '{':
		var m map[string]T
		if err := json.Unmarshal(b, &m); err != nil {
			return err
		}
		for i := range len(m) {
			if item, ok := m[strconv.Itoa(i)]; ok {
				*l = append(*l, item)
			}
		}
	}
	return nil
}
