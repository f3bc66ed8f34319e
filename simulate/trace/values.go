package trace

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var errCount = errors.New("want a number")

// count reads a number, perhaps with sacct's K or M; an empty one changes nothing.
func count(text string, into *int) error {
	if text == "" {
		return nil
	}
	n, err := size(text)
	if err != nil || n > 1<<31 {
		return fmt.Errorf("%q: %w", text, errCount)
	}
	if last := text[len(text)-1]; last == 'K' || last == 'M' { // counts go in thousands
		n = n / 1024 * 1000
	}
	*into = int(n)
	return nil
}

// size reads 1536K, 4G, 0 or 1.50M; sacct marks per-node and per-core sizes with n and c.
func size(text string) (uint64, error) {
	number, shift := strings.TrimRight(text, "nc"), 0
	if number != "" {
		if at := strings.IndexByte("KMGTP", number[len(number)-1]); at >= 0 {
			number, shift = number[:len(number)-1], 10*(at+1)
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(value) || value < 0 || value*math.Pow(2, float64(shift)) > 1<<60 {
		return 0, fmt.Errorf("%q: want a size such as 4G", text)
	}
	return uint64(value * math.Pow(2, float64(shift))), nil
}

// limit reads a time limit: [days-]hours:minutes:seconds, minutes:seconds or minutes; none is 0.
func limit(text string) (time.Duration, error) {
	switch text {
	case "", "UNLIMITED", "Partition_Limit", "INVALID":
		return 0, nil
	}
	days, clock, dayed := strings.Cut(text, "-")
	if !dayed {
		days, clock = "0", text
	}
	parts := strings.Split(clock, ":")
	values := [4]int{}
	var err error
	if values[0], err = strconv.Atoi(days); err != nil || len(parts) > 3 {
		return 0, fmt.Errorf("%q: want days-hours:minutes:seconds", text)
	}
	at := 4 - len(parts)
	if len(parts) == 1 {
		at = 2 // minutes
	}
	if dayed {
		at = 1 // hours
	}
	for i, part := range parts {
		if values[at+i], err = strconv.Atoi(part); err != nil || values[at+i] < 0 {
			return 0, fmt.Errorf("%q: want days-hours:minutes:seconds", text)
		}
	}
	if values[0] < 0 || values[0] > 36500 || max(values[1], values[2], values[3]) > 1<<22 {
		return 0, fmt.Errorf("%q is too long", text)
	}
	return time.Duration(values[0])*24*time.Hour + time.Duration(values[1])*time.Hour + time.Duration(values[2])*time.Minute +
		time.Duration(values[3])*time.Second, nil
}
