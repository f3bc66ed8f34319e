package hostlist

import (
	"fmt"
	"slices"
	"strings"
)

// Numbers expands a list such as "0-2,5", as Slurm writes cores, CPUs and GRES indexes. Empty input gives none; the result is
// sorted and each number is there once.
func Numbers(list string) ([]int, error) {
	var out []int
	if list == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		low, high, _, err := span(part)
		if err != nil {
			return nil, err
		}
		if high >= Max || len(out)+int(high-low) >= Max {
			return nil, fmt.Errorf("%w: %q goes beyond %d", ErrSyntax, part, Max)
		}
		for n := low; n <= high; n++ {
			out = append(out, int(n))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// FormatNumbers writes numbers, which are not negative, as Numbers reads them.
func FormatNumbers(numbers []int) string {
	sorted := make([]uint64, 0, len(numbers))
	for _, n := range numbers {
		sorted = append(sorted, uint64(max(n, 0)))
	}
	slices.Sort(sorted)
	return runs(slices.Compact(sorted), 1)
}

// Counts expands counts per node as in SLURM_JOB_CPUS_PER_NODE: "8(x2),4" is 8, 8, 4. They stand in the order of the node list.
func Counts(list string) ([]int, error) {
	var out []int
	if list == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		text, times, repeated := strings.Cut(part, "(x")
		count, err := number(text)
		if err != nil {
			return nil, err
		}
		n := uint64(1)
		if repeated {
			digits, closed := strings.CutSuffix(times, ")")
			if n, err = number(digits); err != nil || !closed || n == 0 {
				return nil, fmt.Errorf("%w: repetition in %q", ErrSyntax, part)
			}
		}
		if n > Max || len(out)+int(n) > Max || count > 1<<31 {
			return nil, fmt.Errorf("%w: %q goes beyond %d nodes", ErrSyntax, part, Max)
		}
		out = append(out, slices.Repeat([]int{int(count)}, int(n))...)
	}
	return out, nil
}
