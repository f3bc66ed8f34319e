package slack

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"time"
)

// bandwidth adds up what memory has moved, as told by the first source that the node has: resctrl, which counts what each L3 cache reads
// from memory and writes to it, else the memory controllers' own counters by perf.
type bandwidth struct {
	source   string
	without  string // why there is no source
	counters []counter
	spoken   []bool // by counter: it has told before
	total    uint64
	looked   time.Time // when sources were looked for
	told     time.Time // when all counters that have spoken told last
}

// counter counts bytes.
type counter interface {
	// grown is how many bytes have moved since it was asked last. It is false when that cannot be told now; the next answer begins anew.
	grown(s *Sampler) (uint64, bool)
	close()
}

// lookAgain is how often a source is looked for where there is none, or none that tells: a site may mount resctrl at any time.
const lookAgain = time.Minute

// sample enters what has moved. All counters that have ever told have to tell: a part of the memory would pass for all of it.
func (b *bandwidth) sample(s *Sampler, sample *Sample) {
	if b.looked.IsZero() || sample.At.Sub(b.looked) >= lookAgain && sample.At.Sub(b.told) >= lookAgain {
		b.close()
		b.look(s)
		b.looked = sample.At
	}
	known := false
	silent := false
	for i, c := range b.counters {
		bytes, tells := c.grown(s)
		b.total += bytes
		known = known || tells
		silent = silent || b.spoken[i] && !tells
		b.spoken[i] = b.spoken[i] || tells
	}
	sample.Bytes, sample.Source = b.total, b.source
	switch {
	case known && !silent:
		b.told = sample.At
		return
	case b.source == "":
		sample.Blind = b.without
	default:
		sample.Blind = b.source + " does not tell now"
	}
	sample.Missing = append(sample.Missing, "bandwidth")
}

// look finds out what there is.
func (b *bandwidth) look(s *Sampler) {
	b.source, b.counters = "resctrl", caches(s.cfg.FS)
	if len(b.counters) == 0 {
		var err error
		if b.counters, err = s.openControllers(); err != nil {
			b.source, b.without = "", "/sys/fs/resctrl is not mounted or has no mbm_total_bytes, and "+err.Error()
			return
		}
		b.source = "perf"
	}
	b.spoken = make([]bool, len(b.counters))
}

func (b *bandwidth) close() {
	for _, c := range b.counters {
		c.close()
	}
	*b = bandwidth{total: b.total}
}

// caches are the L3 caches of which resctrl tells how many bytes they have moved (Documentation/filesystems/resctrl.rst).
func caches(from fs.FS) []counter {
	const top = "sys/fs/resctrl/mon_data"
	var found []counter
	domains, _ := fs.ReadDir(from, top)
	for _, d := range domains {
		name := path.Join(top, d.Name(), "mbm_total_bytes")
		if _, err := fs.Stat(from, name); err == nil {
			found = append(found, &cache{file: file{path: name}})
		}
	}
	return found
}

// cache is one L3 cache's counter. It says "Unavailable" while the hardware does not tell.
type cache struct {
	file
	last  uint64
	known bool
}

func (c *cache) grown(s *Sampler) (uint64, bool) {
	text, err := c.read(s.cfg.FS, &s.buf)
	value, ok := number(text)
	known, last := c.known, c.last
	c.known, c.last = ok && err == nil, value
	switch {
	case !c.known || known && value < last:
		return 0, false
	case !known:
		return 0, true
	}
	return value - last, true
}

// openControllers opens the counters of all memory controllers, or none.
func (s *Sampler) openControllers() ([]counter, error) {
	if s.cfg.Counters == nil {
		return nil, errors.New("perf is not asked")
	}
	found, err := controllers(s.cfg.FS)
	if err != nil {
		return nil, err
	}
	var opened []counter
	for i := range found {
		if err := found[i].open(s.cfg.Counters); err != nil {
			for _, c := range opened {
				c.close()
			}
			return nil, err
		}
		opened = append(opened, &found[i])
	}
	return slices.Clip(opened), nil
}
