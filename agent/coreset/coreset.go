// Package coreset is a set of small numbers: a node's abstract cores as Slurm counts them, or its GPUs by GRES index. It reads and
// writes Slurm's list form ("0-2,5"). Sets are values: no function changes one that it is given. It knows nothing of hardware.
package coreset

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Limit is the number above the largest that a set can hold.
const Limit = 1 << 16

// Set is a set of numbers below Limit. The zero value is empty. Its last word is never 0, so that equal sets are equal slices.
type Set []uint64

// Of returns the set of the given numbers; those outside 0 to Limit-1 are a programmer's error.
func Of(numbers ...int) Set {
	var s Set
	for _, n := range numbers {
		s = s.with(n)
	}
	return s
}

// Range returns first, first+1, … up to but without end.
func Range(first, end int) Set {
	var s Set
	for n := end - 1; n >= first; n-- {
		s = s.with(n)
	}
	return s
}

// with adds n in place when there is room; only constructors call it.
func (s Set) with(n int) Set {
	if n < 0 || n >= Limit {
		panic(fmt.Sprintf("coreset: %d is outside 0 to %d", n, Limit-1))
	}
	if word := n / 64; word >= len(s) {
		s = append(s, make([]uint64, word+1-len(s))...)
	}
	s[n/64] |= 1 << (n % 64)
	return s
}

// Parse reads a list such as "0-2,5". The empty string is the empty set; numbers may repeat.
func Parse(list string) (Set, error) {
	if list == "" {
		return nil, nil
	}
	var s Set
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 32)
		if err != nil || err2 != nil || a > b || b >= Limit || first[0] == '+' || last[0] == '+' {
			return nil, fmt.Errorf("core list %q: %q is neither a number below %d nor a range", list, part, Limit)
		}
		for n := int(b); n >= int(a); n-- {
			s = s.with(n)
		}
	}
	return s, nil
}

// String writes the set as Parse reads it.
func (s Set) String() string {
	var b strings.Builder
	for n := s.next(0); n >= 0; {
		end := n
		for s.Has(end + 1) {
			end++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(n))
		if end > n {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(end))
		}
		n = s.next(end + 1)
	}
	return b.String()
}

// Has says whether n is in the set.
func (s Set) Has(n int) bool {
	return n >= 0 && n/64 < len(s) && s[n/64]&(1<<(n%64)) != 0
}

// Len counts the set.
func (s Set) Len() int {
	total := 0
	for _, word := range s {
		total += bits.OnesCount64(word)
	}
	return total
}

// Empty says whether nothing is in the set.
func (s Set) Empty() bool { return len(s) == 0 }

// Overlaps says whether the sets share a number.
func (s Set) Overlaps(t Set) bool {
	for i := range min(len(s), len(t)) {
		if s[i]&t[i] != 0 {
			return true
		}
	}
	return false
}

// Or returns the union.
func (s Set) Or(t Set) Set {
	if len(s) < len(t) {
		s, t = t, s
	}
	union := append(Set(nil), s...)
	for i, word := range t {
		union[i] |= word
	}
	return union
}

// And returns the intersection.
func (s Set) And(t Set) Set {
	both := append(Set(nil), s[:min(len(s), len(t))]...)
	for i := range both {
		both[i] &= t[i]
	}
	return both.trim()
}

// Minus returns what is in s and not in t.
func (s Set) Minus(t Set) Set {
	rest := append(Set(nil), s...)
	for i := range min(len(s), len(t)) {
		rest[i] &^= t[i]
	}
	return rest.trim()
}

// Highest returns the n largest numbers of the set, or all when there are fewer.
func (s Set) Highest(n int) Set {
	var top Set
	for i := len(s) - 1; i >= 0 && n > 0; i-- {
		for word := s[i]; word != 0 && n > 0; n-- {
			bit := bits.Len64(word) - 1
			word &^= 1 << bit
			top = top.with(i*64 + bit)
		}
	}
	return top
}

// Numbers lists the set in ascending order.
func (s Set) Numbers() []int {
	numbers := make([]int, 0, s.Len())
	for n := s.next(0); n >= 0; n = s.next(n + 1) {
		numbers = append(numbers, n)
	}
	return numbers
}

// next returns the smallest number of the set from n on, or -1.
func (s Set) next(n int) int {
	for i := n / 64; i < len(s); i++ {
		word := s[i]
		if i == n/64 {
			word &= ^uint64(0) << (n % 64)
		}
		if word != 0 {
			return i*64 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

func (s Set) trim() Set {
	for len(s) > 0 && s[len(s)-1] == 0 {
		s = s[:len(s)-1]
	}
	if len(s) == 0 {
		return nil
	}
	return s
}
