package slack

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/gleaner-hpc/gleaner/agent/coreset"
)

// Event is what a counter of perf counts: fields of perf_event_attr, and the CPU that stands for a socket.
type Event struct {
	Type   uint32
	Config [3]uint64 // config, config1, config2
	CPU    int
}

// Count is what a counter says. Value stands for the time that it ran, a part of the time that it was enabled when others count too.
type Count struct {
	Value            uint64
	Enabled, Running uint64 // nanoseconds
}

// Counter is a counter of perf. It is open, and counts from then on.
type Counter interface {
	Read() (Count, error)
	Close() error
}

// devices is where the kernel names what can be counted (Documentation/ABI/testing/sysfs-bus-event_source-devices-events and -format).
const devices = "sys/bus/event_source/devices"

// families are the events that count what memory has moved, by the beginning of their names, the first that a machine has: those of
// Intel's servers, of each channel on some (cas_count_read_sch0), then those of Intel's desktops. They are named in
// arch/x86/events/intel/uncore_snbep.c and uncore_snb.c. AMD's driver (arch/x86/events/amd/uncore.c) names no events, up to Linux 6.18 at
// least; AMD's processors have resctrl.
var families = [][2]string{{"cas_count_read", "cas_count_write"}, {"data_read", "data_write"}}

// isController says whether a PMU counts at memory.
func isController(pmu string) bool {
	return strings.HasPrefix(pmu, "uncore_imc") || strings.HasPrefix(pmu, "amd_umc_") || pmu == "amd_df"
}

// controller is one event of one memory controller.
type controller struct {
	Event
	name    string  // "uncore_imc_0/cas_count_read"
	bytes   float64 // of a count
	counter Counter
	last    Count
	known   bool
}

// controllers are the events of all memory controllers.
func controllers(from fs.FS) ([]controller, error) {
	pmus, _ := fs.ReadDir(from, devices)
	for _, family := range families {
		var found []controller
		for _, pmu := range pmus {
			if !isController(pmu.Name()) {
				continue
			}
			events, err := ofPMU(from, pmu.Name(), family)
			if err != nil {
				return nil, err
			}
			found = append(found, events...)
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no memory controller's counters are in /%s", devices)
}

// ofPMU are the events of a family that a PMU has, once for each of its CPUs.
func ofPMU(from fs.FS, pmu string, family [2]string) ([]controller, error) {
	dir := path.Join(devices, pmu)
	entries, _ := fs.ReadDir(from, path.Join(dir, "events"))
	var found []controller
	for _, e := range entries {
		named := strings.HasPrefix(e.Name(), family[0]) || strings.HasPrefix(e.Name(), family[1])
		if !named || strings.Contains(e.Name(), ".") {
			continue
		}
		c, cpus, err := describe(from, dir, e.Name())
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", pmu, e.Name(), err)
		}
		c.name = pmu + "/" + e.Name()
		for _, cpu := range cpus.Numbers() {
			c.CPU = cpu
			found = append(found, c)
		}
	}
	return found, nil
}

// describe reads one event of the PMU in dir, and the CPUs on which it is counted.
func describe(from fs.FS, dir, event string) (controller, coreset.Set, error) {
	var c controller
	var failed error
	text := func(name string) string {
		b, err := fs.ReadFile(from, path.Join(dir, name))
		failed = errors.Join(failed, err)
		return strings.TrimSpace(string(b))
	}
	kind, cpumask, terms := text("type"), text("cpumask"), text("events/"+event)
	scale, unit := text("events/"+event+".scale"), text("events/"+event+".unit")
	if failed != nil {
		return c, nil, failed
	}
	number, err := strconv.ParseUint(kind, 10, 32)
	if err != nil {
		return c, nil, fmt.Errorf("type %q is no number", kind)
	}
	c.Type = uint32(number)
	cpus, err := coreset.Parse(cpumask)
	if err != nil || cpus.Empty() {
		return c, nil, fmt.Errorf("cpumask %q names no CPUs", cpumask)
	}
	if c.bytes, err = strconv.ParseFloat(scale, 64); err != nil || !(c.bytes > 0 && c.bytes < 1<<20) {
		return c, nil, fmt.Errorf("scale %q is not what a count can stand for", scale)
	}
	if unit != "MiB" {
		return c, nil, fmt.Errorf("unit %q, want MiB", unit)
	}
	c.bytes *= 1 << 20
	return c, cpus, c.terms(from, dir, terms)
}

// terms reads what an event is made of, such as "event=0x04,umask=0x03"; each name has a format of its own. A name alone stands for 1.
func (e *Event) terms(from fs.FS, dir, text string) error {
	for term := range strings.SplitSeq(text, ",") {
		name, value, given := strings.Cut(term, "=")
		if name == "" || strings.ContainsAny(name, "/.") {
			return fmt.Errorf("term %q has no name", term)
		}
		number := uint64(1)
		if given {
			var err error
			if number, err = strconv.ParseUint(value, 0, 64); err != nil {
				return fmt.Errorf("term %q has no number", term)
			}
		}
		format, err := fs.ReadFile(from, path.Join(dir, "format", name))
		if err != nil {
			return err
		}
		if err := e.put(number, strings.TrimSpace(string(format))); err != nil {
			return fmt.Errorf("term %q: %w", term, err)
		}
	}
	return nil
}

// put lays a number's bits, the lowest first, where a format such as "config:8-15,32-55" has them.
func (e *Event) put(number uint64, format string) error {
	field, bits, _ := strings.Cut(format, ":")
	which := map[string]int{"config": 0, "config1": 1, "config2": 2}
	i, known := which[field]
	if !known {
		return fmt.Errorf("format %q is not known", format)
	}
	places, err := coreset.Parse(bits)
	if err != nil || places.Empty() || places.Minus(coreset.Range(0, 64)).Len() > 0 {
		return fmt.Errorf("format %q names no bits", format)
	}
	for _, place := range places.Numbers() {
		e.Config[i] |= number & 1 << place
		number >>= 1
	}
	if number != 0 {
		return fmt.Errorf("the number does not fit format %q", format)
	}
	return nil
}

func (c *controller) open(counters func(Event) (Counter, error)) error {
	var err error
	if c.counter, err = counters(c.Event); err != nil {
		return fmt.Errorf("%s on CPU %d: %w", c.name, c.CPU, err)
	}
	return nil
}

// grown takes what was counted in a part of the time for all of it, as perf stat does.
func (c *controller) grown(*Sampler) (uint64, bool) {
	now, err := c.counter.Read()
	known, last := c.known, c.last
	c.known, c.last = err == nil, now
	if err != nil || !known {
		return 0, err == nil
	}
	enabled, running := now.Enabled-last.Enabled, now.Running-last.Running
	if now.Value < last.Value || running == 0 || running > enabled {
		c.known = false
		return 0, false
	}
	return uint64(float64(now.Value-last.Value) * c.bytes * float64(enabled) / float64(running)), true
}

func (c *controller) close() { _ = c.counter.Close() }
