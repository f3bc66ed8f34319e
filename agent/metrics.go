package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gleaner-hpc/gleaner/agent/ledger"
	"github.com/gleaner-hpc/gleaner/api"
)

// Metrics are the agent's figures for Prometheus. The loop alone sets them.
type Metrics struct {
	Registry *prometheus.Registry

	cpus, memory, leasedCPUs, leasedMemory, leasedGPUs prometheus.Gauge
	waiting                                            prometheus.Gauge
	unused, borrowed                                   prometheus.Gauge
	reclaimed                                          prometheus.Counter
	evictions                                          *prometheus.CounterVec
	eviction, delay                                    prometheus.Histogram
	startups                                           *prometheus.HistogramVec
	refused                                            *prometheus.CounterVec
}

// NewMetrics registers them in a registry of their own.
func NewMetrics(version string) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	fast := prometheus.ExponentialBuckets(0.0001, 2, 15) // 0.1 ms to 1.6 s
	m := &Metrics{
		Registry:     prometheus.NewRegistry(),
		cpus:         gauge("gleaner_node_harvestable_cpus", "Cores that could be lent now."),
		memory:       gauge("gleaner_node_harvestable_memory_bytes", "Memory that could be lent now."),
		leasedCPUs:   gauge("gleaner_node_harvested_cpus", "Cores that executors hold."),
		leasedMemory: gauge("gleaner_node_harvested_memory_bytes", "Memory that executors hold."),
		leasedGPUs:   gauge("gleaner_node_harvested_gpus", "GPUs that executors hold."),
		waiting:      gauge("gleaner_node_parked_sandboxes", "Sandboxes started ahead of demand that a lease could take."),
		unused:       gauge("gleaner_node_unused_memory_bytes", "Memory inside jobs' allocations that could be lent now."),
		borrowed:     gauge("gleaner_node_borrowed_memory_bytes", "Memory inside jobs' allocations that executors hold."),
		reclaimed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gleaner_reclaimed_total", Help: "Executors ended because a job used the memory or GPU that it had lent.",
		}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gleaner_evictions_total", Help: "Executors ended for a Slurm job.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gleaner_tokens_refused_total", Help: "Clients that executors did not let in for their tokens.",
		}, []string{"reason"}),
		eviction: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gleaner_eviction_duration_seconds", Help: "From a claim with something to evict to its answer.", Buckets: fast,
		}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gleaner_job_start_delay_seconds", Help: "From a claim to its answer, with or without evictions.", Buckets: fast,
		}),
		startups: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gleaner_function_startup_seconds", Help: "From the broker's start to an executor that serves.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"path"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gleaner_build_info", Help: "1, labelled with the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.Registry.MustRegister(info, m.cpus, m.memory, m.leasedCPUs, m.leasedMemory, m.leasedGPUs, m.waiting, m.unused, m.borrowed, m.reclaimed, m.refused, m.evictions, m.eviction, m.delay, m.startups)
	return m
}

func (m *Metrics) node(l *ledger.Ledger, now time.Time) {
	free, leased := l.Free(now), l.Leased()
	m.cpus.Set(float64(free.Cores))
	m.memory.Set(float64(free.Memory))
	m.leasedCPUs.Set(float64(leased.Cores))
	m.leasedMemory.Set(float64(leased.Memory))
	m.leasedGPUs.Set(float64(leased.GPUs))
	m.unused.Set(float64(l.Unused().Memory))
	m.borrowed.Set(float64(l.Borrowed().Memory))
}

func (m *Metrics) claim(took time.Duration, evicted int) {
	m.delay.Observe(took.Seconds())
	if evicted > 0 {
		m.eviction.Observe(took.Seconds())
	}
}

// startup is warm from a parked sandbox, cold otherwise.
func (m *Metrics) startup(took time.Duration, parked bool) {
	path := "cold"
	if parked {
		path = "warm"
	}
	m.startups.WithLabelValues(path).Observe(took.Seconds())
}

func (m *Metrics) parked(all map[string]*parked) {
	usable := 0
	for _, p := range all {
		if p.prepared && !p.ending {
			usable++
		}
	}
	m.waiting.Set(float64(usable))
}

func (m *Metrics) ended(e *executor) {
	if e.reason == api.EndReason_EVICTED {
		m.evictions.WithLabelValues("job").Inc()
	}
}
