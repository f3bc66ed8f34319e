package broker

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the broker exports. No job, lease or user is a label.
type metrics struct {
	leases, executors    prometheus.Gauge
	denied, evictions    *prometheus.CounterVec
	eviction, startDelay prometheus.Histogram
	harvestedCPU         *prometheus.CounterVec
	dropped, shed        prometheus.Counter
	auditFailing         prometheus.Gauge
}

// newMetrics makes and registers them; a nil registerer registers nothing.
func newMetrics(r prometheus.Registerer, version string) *metrics {
	seconds := []float64{.0005, .001, .002, .004, .006, .01, .015, .025, .05, .1, .25, .5, 1, 2.5}
	m := &metrics{
		leases:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "gleaner_leases", Help: "Living leases."}),
		executors: prometheus.NewGauge(prometheus.GaugeOpts{Name: "gleaner_executors", Help: "Executors of living leases, starting ones included."}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gleaner_lease_denied_total", Help: "Leases that were not admitted, by rule.",
		}, []string{"reason"}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gleaner_evictions_total", Help: "Executors taken from leases: a Slurm job needed their node, or the node was lost.",
		}, []string{"reason"}),
		eviction: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gleaner_eviction_duration_seconds", Help: "Time from a claim that evicted something to the agent's answer.", Buckets: seconds,
		}),
		startDelay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gleaner_job_start_delay_seconds", Help: "Time that each claim added to the start of a Slurm job on one node.", Buckets: seconds,
		}),
		harvestedCPU: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gleaner_harvested_cpu_seconds_total", Help: "CPU time lent to executors.",
		}, []string{"partition"}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gleaner_policy_shed_total", Help: "Executors let go because they disturbed the jobs beside them.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gleaner_report_dropped_total", Help: "Intervals missing from the report because its store could not keep up.",
		}),
		auditFailing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gleaner_audit_failing", Help: "1 while the audit log cannot be written.",
		}),
	}
	if r != nil {
		info := prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gleaner_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version(), "component": "broker"},
		})
		info.Set(1)
		r.MustRegister(info, m.leases, m.executors, m.denied, m.evictions, m.eviction, m.startDelay, m.harvestedCPU, m.dropped, m.shed, m.auditFailing)
	}
	return m
}
