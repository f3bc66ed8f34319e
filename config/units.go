package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Memory is a size in bytes, written in Slurm's units: a number followed by K, M, G or T (powers of 1024), with an optional B;
// a bare number is MiB, as everywhere in Slurm.
type Memory uint64

// UnmarshalText reads what ParseMemory reads; empty leaves 0.
func (m *Memory) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = 0
		return nil
	}
	bytes, err := ParseMemory(string(text))
	*m = Memory(bytes)
	return err
}

// ParseMemory reads a size in Slurm's units and returns bytes.
func ParseMemory(s string) (uint64, error) {
	number := strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(s)), "B")
	shift := 20
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGT", number[n-1]); i >= 0 {
			shift, number = 10*(i+1), number[:n-1]
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || value < 0 || math.IsNaN(value) || value*math.Pow(2, float64(shift)) >= math.MaxInt64 {
		return 0, fmt.Errorf("memory size %q: want a number with K, M, G or T, such as 4096M or 16G (a bare number is MiB)", s)
	}
	return uint64(value * math.Pow(2, float64(shift))), nil
}

// FormatMemory writes bytes in the largest of Slurm's units that keeps three digits.
func FormatMemory(bytes uint64) string {
	value, unit := float64(bytes)/(1<<10), 0
	for value >= 1024 && unit < 3 {
		value, unit = value/1024, unit+1
	}
	text := strconv.FormatFloat(value, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + "KMGT"[unit:unit+1]
}

// Duration is a time span in Slurm's forms (seconds, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS) or Go's (50ms, 2m).
type Duration time.Duration

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// ParseDuration reads a time span in Slurm's or Go's forms. A bare number is seconds.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("duration %q: want seconds, MM:SS, HH:MM:SS, D-HH:MM:SS, or a number with ms, s, m or h", s)
	if d, err := time.ParseDuration(s); err == nil && s != "" {
		if d < 0 {
			return 0, bad
		}
		return d, nil
	}
	days, clock, dated := strings.Cut(s, "-")
	if !dated {
		days, clock = "0", s
	}
	fields := strings.Split(clock, ":")
	if len(fields) > 3 {
		return 0, bad
	}
	units := []time.Duration{time.Hour, time.Minute, time.Second}
	if !dated {
		units = units[3-len(fields):]
	}
	n, err := strconv.ParseUint(days, 10, 16)
	total := time.Duration(n) * 24 * time.Hour
	for i, field := range fields {
		value, e := strconv.ParseUint(field, 10, 31)
		if e != nil {
			err = e
		}
		total += time.Duration(value) * units[i]
	}
	if err != nil || total < 0 {
		return 0, bad
	}
	return total, nil
}
