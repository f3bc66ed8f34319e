package simulate

import (
	"math/bits"
	"slices"
)

// bitmap is a set of small numbers that finds the next one fast.
type bitmap struct {
	words []uint64
	count int
}

func newBits(n int) bitmap { return bitmap{words: make([]uint64, (n+63)/64)} }

func (b *bitmap) set(i int) { b.put(i, true) }

func (b *bitmap) put(i int, in bool) {
	word, bit := &b.words[i/64], uint64(1)<<(i%64)
	switch {
	case in && *word&bit == 0:
		*word |= bit
		b.count++
	case !in && *word&bit != 0:
		*word &^= bit
		b.count--
	}
}

// next is the first number from i on, -1 when there is none.
func (b *bitmap) next(i int) int {
	for word := i / 64; word < len(b.words); word++ {
		rest := b.words[word]
		if word == i/64 {
			rest &= ^uint64(0) << (i % 64)
		}
		if rest != 0 {
			return word*64 + bits.TrailingZeros64(rest)
		}
	}
	return -1
}

// members is a set of nodes that is emptied often.
type members struct {
	list []int32
	in   []bool
}

func newMembers(n int) members { return members{in: make([]bool, n)} }

func (m *members) add(i int32) {
	if !m.in[i] {
		m.in[i] = true
		m.list = append(m.list, i)
	}
}

// drain empties the set and returns what was in it, sorted; the slice is good until the next add.
func (m *members) drain() []int32 {
	slices.Sort(m.list)
	for _, i := range m.list {
		m.in[i] = false
	}
	list := m.list
	m.list = m.list[:0]
	return list
}
