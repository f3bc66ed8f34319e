package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/bench/invoke"
)

func (a *app) benchInvokeCommand() *cobra.Command {
	cfg := invoke.Config{Spin: 50 * time.Microsecond}
	var out string
	c := &cobra.Command{
		Use: "invoke", Short: "Measure invocations beside the bare carrier: hot, warm, many in flight, bandwidth", Args: cobra.NoArgs,
		Long: `Measure invocations of an echo function from C and from Go, in turns with round trips over the carrier alone. Executors are ordinary
processes of this machine without agent and broker, which an invocation does not pass. Both sides poll: leave two cores idle meanwhile.`,
		Example: "  gleaner bench invoke -o invoke.json",
		RunE:    func(c *cobra.Command, _ []string) error { return a.benchInvoke(c.Context(), cfg, out) },
	}
	f := c.Flags()
	f.StringVarP(&out, "out", "o", "", "file for the document with all figures")
	f.StringSliceVar(&cfg.Carriers, "carrier", []string{"ring", "ofi"}, "what carries: ring, ofi or both")
	f.StringVar(&cfg.Provider, "provider", "tcp;ofi_rxm", "libfabric's provider")
	f.StringVar(&cfg.Host, "host", "127.0.0.1", "address of this machine that libfabric uses")
	f.IntSliceVar(&cfg.Sizes, "size", []int{64, 4096, 65536, 1 << 20}, "payloads in bytes, up to 1 MiB")
	f.IntVar(&cfg.Rounds, "rounds", 4000, "round trips of 64 bytes in each turn; larger payloads get fewer")
	f.IntVar(&cfg.Turns, "turns", 15, "turns; ratios are the medians over them")
	f.Var((*duration)(&cfg.Spin), "spin", "how long both sides poll before they sleep, in the hot measurements")
	f.StringVar(&cfg.Executor, "executor", installed("libexec/gleaner/executor"), "the executor's program")
	f.StringVar(&cfg.Wire, "wire", installed("libexec/gleaner/wire"), "the program of bare carriers and C caller")
	f.StringVar(&cfg.Function, "function", installed("lib/gleaner/functions/echo.so"), "the function")
	return c
}

func (a *app) benchInvoke(ctx context.Context, cfg invoke.Config, out string) error {
	for _, carrier := range cfg.Carriers {
		if carrier != "ring" && carrier != "ofi" {
			return usage("--carrier %s: want ring or ofi", carrier)
		}
	}
	for _, size := range cfg.Sizes {
		if size < 1 || size > 1<<20 {
			return usage("--size %d: want 1 to %d", size, 1<<20)
		}
	}
	if cfg.Rounds < 1 || cfg.Turns < 1 {
		return usage("--rounds and --turns take positive numbers")
	}
	cfg.Progress = func(what string) { fmt.Fprintln(a.stderr, what) }
	result, err := invoke.Run(ctx, cfg)
	if len(result.Rows) == 0 {
		return err
	}
	return a.deliver(out, invokeListing(result), err)
}

func invokeListing(r *invoke.Result) listing {
	l := listing{
		header:   []string{"carrier", "what", "caller", "bytes", "p50 µs", "p99 µs", "p99.9 µs", "bare p50", "ratio", "bound", "per s", "within"},
		numeric:  map[int]bool{3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 10: true},
		csvNames: []string{"carrier", "what", "caller", "bytes", "p50_us", "p99_us", "p999_us", "bare_p50_us", "ratio", "bound", "per_second", "within"},
		document: r,
	}
	for _, x := range r.Rows {
		us := func(ns uint32) string { return fmt.Sprintf("%.2f", float64(ns)/1e3) }
		row := []string{x.Carrier, x.What, x.Caller, fmt.Sprint(x.Bytes), us(x.Measured.P50), us(x.Measured.P99), us(x.Measured.P999), us(x.Bare.P50),
			fmt.Sprintf("%.2f", x.Ratio), bound(x.Bound), fmt.Sprintf("%.0f", x.Rate), yesNo(x.Within)}
		if x.Measured.Samples == 0 {
			row[4], row[5], row[6], row[7] = "", "", "", ""
		}
		l.rows = append(l.rows, row)
	}
	return l
}
