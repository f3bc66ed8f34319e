package report

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Build reports on [since, until). A zero since means from the first interval on; a zero until means to the end of the last.
func (s *Store) Build(ctx context.Context, since, until time.Time) (*Report, error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("build report: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	var first, last sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT min(start), max(stop) FROM intervals").Scan(&first, &last); err != nil {
		return nil, fmt.Errorf("build report: find the first interval: %w", err)
	}
	if since.IsZero() {
		since = time.Unix(0, first.Int64)
	}
	if until.IsZero() {
		until = time.Unix(0, last.Int64)
	}
	if until.Before(since) {
		return nil, fmt.Errorf("build report: until %s is before since %s", until.Format(time.RFC3339), since.Format(time.RFC3339))
	}
	u := newRollup(since, until)
	// UnixNano is undefined outside the years 1678 to 2262.
	from, to := since.UnixMilli()*1_000_000, (until.UnixMilli()+1)*1_000_000
	for _, load := range []func(context.Context, *sql.Tx, *rollup, int64, int64) error{
		loadIntervals, loadExecutors, loadClaims, loadTasks, loadDrains,
	} {
		if err := load(ctx, tx, u, from, to); err != nil {
			return nil, fmt.Errorf("build report: %w", err)
		}
	}
	return u.report(), nil
}

// each calls scan for every row of the query.
func each(ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func at(ns int64) time.Time { return time.Unix(0, ns) }

func loadIntervals(ctx context.Context, tx *sql.Tx, u *rollup, from, to int64) error {
	return each(ctx, tx, func(rows *sql.Rows) error {
		var iv Interval
		var start, stop, memory, allocated, used, harvested int64
		if err := rows.Scan(&iv.Node, &iv.Partition, &start, &stop, &iv.CPUs, &iv.State, &iv.AllocatedCPUs, &iv.HarvestedCPUs,
			&memory, &allocated, &used, &harvested, &iv.GPUs, &iv.AllocatedGPUs, &iv.HarvestedGPUs); err != nil {
			return fmt.Errorf("read interval: %w", err)
		}
		iv.Start, iv.End = at(start), at(stop)
		iv.MemoryBytes, iv.AllocatedMemory, iv.UsedMemory, iv.HarvestedMemory = uint64(memory), uint64(allocated), uint64(used), uint64(harvested)
		u.interval(iv)
		return nil
	}, `SELECT node, partition, start, stop, cpus, state, allocated_cpus, harvested_cpus, memory, allocated_memory, used_memory, harvested_memory,
gpus, allocated_gpus, harvested_gpus FROM intervals WHERE stop > ? AND start < ? ORDER BY node, start, rowid`, from, to)
}

func loadExecutors(ctx context.Context, tx *sql.Tx, u *rollup, from, to int64) error {
	return each(ctx, tx, func(rows *sql.Rows) error {
		var e Executor
		var start, stop, memory, cpu, startup, spin int64
		if err := rows.Scan(&e.User, &e.Account, &e.Function, &e.Cores, &memory, &e.GPUs, &start, &stop, &cpu, &e.Reason, &startup, &spin); err != nil {
			return fmt.Errorf("read executor: %w", err)
		}
		e.Start, e.End, e.Memory, e.CPUTime, e.Startup = at(start), at(stop), uint64(memory), time.Duration(cpu), time.Duration(startup)
		e.SpinTime = time.Duration(spin)
		u.executor(e)
		return nil
	}, `SELECT user, account, function, cores, memory, gpus, start, stop, cpu, reason, startup, spin FROM executors WHERE stop >= ? AND start < ?`, from, to)
}

func loadClaims(ctx context.Context, tx *sql.Tx, u *rollup, from, to int64) error {
	return each(ctx, tx, func(rows *sql.Rows) error {
		var c Claim
		var when, duration, memory int64
		if err := rows.Scan(&c.Job, &c.Node, &c.Path, &when, &duration, &c.Evicted, &memory, &c.Complete); err != nil {
			return fmt.Errorf("read claim: %w", err)
		}
		c.Time, c.Duration, c.Memory = at(when), time.Duration(duration), uint64(memory)
		u.claim(c)
		return nil
	}, "SELECT job, node, path, time, duration, evicted, memory, complete FROM claims WHERE time >= ? AND time < ?", from, to)
}

func loadTasks(ctx context.Context, tx *sql.Tx, u *rollup, from, to int64) error {
	return each(ctx, tx, func(rows *sql.Rows) error {

		var when, ok, failed, retried int64
		if err := rows.Scan(&when, &ok, &failed, &retried); err != nil {
			return fmt.Errorf("read tasks: %w", err)
		}
		u.tasks(Tasks{Time: at(when), OK: uint64(ok), Failed: uint64(failed), Retried: uint64(retried)})
		return nil
	}, "SELECT time, ok, failed, retried FROM tasks WHERE time >= ? AND time < ?", from, to)
}

func loadDrains(ctx context.Context, tx *sql.Tx, u *rollup, from, to int64) error {
	return each(ctx, tx, func(rows *sql.Rows) error {
		var d Drain
		var when int64
		if err := rows.Scan(&d.Node, &when, &d.Reason, &d.Ours); err != nil {
			return fmt.Errorf("read drain: %w", err)
		}
		d.Time = at(when)
		u.drain(d)
		return nil
	}, "SELECT node, time, reason, ours FROM drains WHERE time >= ? AND time < ?", from, to)
}
