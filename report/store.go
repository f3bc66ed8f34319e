package report

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// schemaVersion counts the changes of the tables; it lives in SQLite's user_version.
const schemaVersion = 3

const tables = `
CREATE TABLE intervals (node TEXT, partition TEXT, start INT, stop INT, cpus INT, state TEXT, allocated_cpus INT, harvested_cpus INT,
  memory INT, allocated_memory INT, used_memory INT, harvested_memory INT, gpus INT, allocated_gpus INT, harvested_gpus INT);
CREATE INDEX intervals_by_node ON intervals (node, start);
CREATE INDEX intervals_by_stop ON intervals (stop);
CREATE TABLE executors (id TEXT, lease INT, node TEXT, partition TEXT, uid INT, user TEXT, account TEXT, function TEXT, digest TEXT, cores INT,
  memory INT, gpus INT, start INT, stop INT, cpu INT, peak INT, reason TEXT, detail TEXT, startup INT);
CREATE INDEX executors_by_stop ON executors (stop);
CREATE TABLE claims (job INT, node TEXT, path TEXT, time INT, duration INT, evicted INT, memory INT, complete INT);
CREATE INDEX claims_by_time ON claims (time);
CREATE TABLE tasks (lease INT, time INT, ok INT, failed INT, retried INT);
CREATE INDEX tasks_by_time ON tasks (time);
CREATE TABLE drains (node TEXT, time INT, reason TEXT, ours INT);
CREATE INDEX drains_by_time ON drains (time);
PRAGMA user_version = 1;`

// once keeps records apart from their repetition: an agent sends again what a broker that died had stored but not acknowledged.
const once = `
DELETE FROM executors WHERE rowid NOT IN (SELECT min(rowid) FROM executors GROUP BY id, start);
CREATE UNIQUE INDEX executors_once ON executors (id, start);
DELETE FROM claims WHERE rowid NOT IN (SELECT min(rowid) FROM claims GROUP BY node, time, job, path);
CREATE UNIQUE INDEX claims_once ON claims (node, time, job, path);
PRAGMA user_version = 2;`

// polled is a column that came later.
const polled = `
ALTER TABLE executors ADD COLUMN spin INT NOT NULL DEFAULT 0;
PRAGMA user_version = 3;`

// Store keeps the records in one SQLite file. It may be used by several goroutines, and read by other processes meanwhile.
type Store struct {
	db *sql.DB
}

// Open opens the store at path and makes it when it is not there. A store written by a newer version is an error.
func Open(path string) (*Store, error) {
	// SQLite gives its other files the mode of this one: who ran what is for the broker's user alone.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open report store: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("open report store %s: %w", path, err)
	}
	query := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(wal)", "synchronous(normal)"}}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open report store %s: %w", path, err)
	}
	if err := migrate(db); err != nil {
		return nil, errors.Join(fmt.Errorf("open report store %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

func migrate(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	var version int
	if err := tx.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	switch {
	case version > schemaVersion:
		return fmt.Errorf("it has schema version %d, this program knows %d: use the newer gleaner-brokerd, or move the file away", version, schemaVersion)
	}
	for v, change := range []string{tables, once, polled} {
		if v < version {
			continue
		}
		if _, err := tx.Exec(change); err != nil {
			return fmt.Errorf("make schema version %d: %w", v+1, err)
		}
	}
	return tx.Commit()
}

// Close closes the store.
func (s *Store) Close() error { return s.db.Close() }

// AddInterval adds one interval. One that continues the node's last interval with nothing changed prolongs it instead.
func (s *Store) AddInterval(ctx context.Context, iv Interval) error {
	if !iv.End.After(iv.Start) {
		return fmt.Errorf("add interval of node %s: it ends at %s, not after its start at %s", iv.Node, iv.End, iv.Start)
	}
	same := []any{
		iv.Node, iv.Partition, iv.CPUs, string(iv.State), iv.AllocatedCPUs, iv.HarvestedCPUs, int64(iv.MemoryBytes),
		int64(iv.AllocatedMemory), int64(iv.UsedMemory), int64(iv.HarvestedMemory), iv.GPUs, iv.AllocatedGPUs, iv.HarvestedGPUs,
	}
	result, err := s.db.ExecContext(ctx, `UPDATE intervals SET stop = ? WHERE stop = ? AND node = ? AND partition = ? AND cpus = ? AND state = ?
AND allocated_cpus = ? AND harvested_cpus = ? AND memory = ? AND allocated_memory = ? AND used_memory = ? AND harvested_memory = ?
AND gpus = ? AND allocated_gpus = ? AND harvested_gpus = ?`, append([]any{iv.End.UnixNano(), iv.Start.UnixNano()}, same...)...)
	if err != nil {
		return fmt.Errorf("prolong interval of node %s: %w", iv.Node, err)
	}
	if n, err := result.RowsAffected(); err == nil && n > 0 {
		return nil
	}
	return s.insert(ctx, "interval of node "+iv.Node, `INSERT INTO intervals (start, stop, node, partition, cpus, state, allocated_cpus,
harvested_cpus, memory, allocated_memory, used_memory, harvested_memory, gpus, allocated_gpus, harvested_gpus)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`, append([]any{iv.Start.UnixNano(), iv.End.UnixNano()}, same...)...)
}

// AddExecutor adds the life of an executor that has ended, once. It takes the place of what was assumed while its node was lost.
func (s *Store) AddExecutor(ctx context.Context, e Executor) error {
	const assumed = "DELETE FROM executors WHERE id = ? AND node = ? AND reason = ?"
	if err := s.insert(ctx, "executor "+e.ID, assumed, e.ID, e.Node, NodeLost); err != nil {
		return err
	}
	return s.insert(ctx, "executor "+e.ID, "INSERT OR IGNORE INTO executors VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		e.ID, int64(e.Lease), e.Node, e.Partition, e.UID, e.User, e.Account, e.Function, e.Digest, e.Cores, int64(e.Memory), e.GPUs,
		e.Start.UnixNano(), e.End.UnixNano(), int64(e.CPUTime), int64(e.PeakBytes), e.Reason, e.Detail, int64(e.Startup), int64(e.SpinTime))
}

// AddClaim adds one answer to the gate or the Prolog, once.
func (s *Store) AddClaim(ctx context.Context, c Claim) error {
	return s.insert(ctx, "claim on node "+c.Node, "INSERT OR IGNORE INTO claims VALUES (?,?,?,?,?,?,?,?)",
		c.Job, c.Node, c.Path, c.Time.UnixNano(), int64(c.Duration), c.Evicted, int64(c.Memory), c.Complete)
}

// AddTasks adds what a lease's holder reported since its last report.
func (s *Store) AddTasks(ctx context.Context, t Tasks) error {
	return s.insert(ctx, "tasks", "INSERT INTO tasks VALUES (?,?,?,?,?)",
		int64(t.Lease), t.Time.UnixNano(), int64(t.OK), int64(t.Failed), int64(t.Retried))
}

// AddDrain adds a node's leaving service.
func (s *Store) AddDrain(ctx context.Context, d Drain) error {
	return s.insert(ctx, "drain of node "+d.Node, "INSERT INTO drains VALUES (?,?,?,?)", d.Node, d.Time.UnixNano(), d.Reason, d.Ours)
}

func (s *Store) insert(ctx context.Context, what, query string, args ...any) error {
	if _, err := s.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("add %s to the report store: %w", what, err)
	}
	return nil
}

// Prune forgets what ended before the given time.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	for _, query := range []string{
		"DELETE FROM intervals WHERE stop < ?", "DELETE FROM executors WHERE stop < ?", "DELETE FROM claims WHERE time < ?",
		"DELETE FROM tasks WHERE time < ?", "DELETE FROM drains WHERE time < ?",
	} {
		if _, err := s.db.ExecContext(ctx, query, before.UnixNano()); err != nil {
			return fmt.Errorf("prune report store: %w", err)
		}
	}
	return nil
}
