package hostlist

import (
	"slices"
	"strconv"
	"strings"
)

// Compress writes names as a node list: sorted by prefix and number, each once, runs of one prefix and width as ranges. Names that
// Slurm would not accept are written as they are.
func Compress(names []string) string {
	groups := map[group][]uint64{}
	for _, name := range names {
		g, n := split(name)
		groups[g] = append(groups[g], n)
	}
	keys := make([]group, 0, len(groups))
	for g := range groups {
		keys = append(keys, g)
	}
	slices.SortFunc(keys, func(a, b group) int {
		if c := strings.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		return a.width - b.width
	})
	words := make([]string, 0, len(keys))
	for _, g := range keys {
		words = append(words, g.word(groups[g]))
	}
	return strings.Join(words, ",")
}

// group is what names of one range share. A width of 0 means that there is no number; numbers without leading zeros have width 1.
type group struct {
	prefix string
	width  int
}

func split(name string) (group, uint64) {
	digits := len(name)
	for digits > 0 && name[digits-1] >= '0' && name[digits-1] <= '9' && len(name)-digits < 15 {
		digits--
	}
	if digits == len(name) {
		return group{prefix: name}, 0
	}
	n, err := strconv.ParseUint(name[digits:], 10, 64)
	if err != nil {
		return group{prefix: name}, 0
	}
	width := 1
	if name[digits] == '0' {
		width = len(name) - digits
	}
	return group{prefix: name[:digits], width: width}, n
}

func (g group) word(numbers []uint64) string {
	if g.width == 0 {
		return g.prefix
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	if len(numbers) == 1 {
		return g.prefix + pad(numbers[0], g.width)
	}
	return g.prefix + "[" + runs(numbers, g.width) + "]"
}

func pad(n uint64, width int) string {
	text := strconv.FormatUint(n, 10)
	return strings.Repeat("0", max(0, width-len(text))) + text
}

// runs writes sorted, distinct numbers as "1-3,7".
func runs(numbers []uint64, width int) string {
	var b strings.Builder
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pad(numbers[i], width))
		if j > i {
			b.WriteByte('-')
			b.WriteString(pad(numbers[j], width))
		}
		i = j + 1
	}
	return b.String()
}
