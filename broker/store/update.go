package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// Entry is one line of a lease's history.
type Entry struct {
	Time time.Time `json:"time"`
	What string    `json:"what"`
	Why  string    `json:"why,omitempty"`
}

// Totals is what a lease's holder reported of its tasks.
type Totals struct {
	OK      uint64 `json:"ok"`
	Failed  uint64 `json:"failed"`
	Retried uint64 `json:"retried"`
	Cut     uint64 `json:"cut,omitempty"` // detailed task records that were not kept
}

// Task is the detailed record of one task, as its reporter encoded it.
type Task struct {
	Index  uint64
	Record []byte
}

// Change is one atomic change.
type Change struct {
	Next      uint64 // 0: unchanged
	Leases    map[uint64]*lease.Lease
	Executors map[string]*lease.Executor // nil: gone
	History   map[uint64][]Entry         // by lease
	Totals    map[uint64]Totals          // added to what is there
	Tasks     map[uint64][]Task          // by lease; a task reported again replaces its record
	Nodes     map[string]Node
}

// Empty says that there is nothing to write.
func (c *Change) Empty() bool {
	return c.Next == 0 && len(c.Leases)+len(c.Executors)+len(c.History)+len(c.Totals)+len(c.Tasks)+len(c.Nodes) == 0
}

// Update writes a change. When it fails nothing of it is written.
func (s *Store) Update(c Change) error {
	if c.Empty() {
		return nil
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		if c.Next != 0 {
			if err := tx.Bucket(bucketMeta).Put(keyNext, number(c.Next)); err != nil {
				return err
			}
		}
		for _, write := range []func(*bolt.Tx) error{c.leases, c.executors, c.history, c.tasks, c.nodes} {
			if err := write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write broker state: %w", err)
	}
	return nil
}

func (c *Change) leases(tx *bolt.Tx) error {
	for id, l := range c.Leases {
		if l.Ended.IsZero() {
			if err := put(tx, bucketLeases, number(id), l); err != nil {
				return err
			}
			continue
		}
		if err := tx.Bucket(bucketLeases).Delete(number(id)); err != nil {
			return err
		}
		if err := put(tx, bucketEnded, number(id), l); err != nil {
			return err
		}
		if err := tx.Bucket(bucketExpiry).Put(pair(uint64(l.Ended.Unix()), id), nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *Change) executors(tx *bolt.Tx) error {
	for id, x := range c.Executors {
		err := error(nil)
		if x == nil {
			err = tx.Bucket(bucketExecutors).Delete([]byte(id))
		} else {
			err = put(tx, bucketExecutors, []byte(id), x)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Change) history(tx *bolt.Tx) error {
	for id, entries := range c.History {
		n := lastOf(tx.Bucket(bucketHistory), id)
		for _, e := range entries {
			// The last line may always be replaced, so that how a lease ended is kept.
			n = min(n+1, MaxHistory)
			if n == MaxHistory {
				e.What += " (lines before this one were cut)"
			}
			if err := put(tx, bucketHistory, pair(id, n), e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Change) tasks(tx *bolt.Tx) error {
	for id, add := range c.Totals {
		totals, err := totalsOf(tx, id)
		if err != nil {
			return err
		}
		bucket, kept := tx.Bucket(bucketTasks), countOf(tx.Bucket(bucketTasks), id, MaxTasks, c.Tasks[id])
		for _, task := range c.Tasks[id] {
			key := pair(id, task.Index)
			if bucket.Get(key) == nil {
				if kept >= MaxTasks {
					totals.Cut++
					continue
				}
				kept++
			}
			if err := bucket.Put(key, task.Record); err != nil {
				return err
			}
		}
		totals.OK, totals.Failed, totals.Retried = totals.OK+add.OK, totals.Failed+add.Failed, totals.Retried+add.Retried
		if err := put(tx, bucketTotals, number(id), totals); err != nil {
			return err
		}
	}
	return nil
}

func (c *Change) nodes(tx *bolt.Tx) error {
	for name, n := range c.Nodes {
		if err := put(tx, bucketNodes, []byte(name), n); err != nil {
			return err
		}
	}
	return nil
}

// Prune deletes what is left of leases that ended before a time, at most limit of them, and says how many.
func (s *Store) Prune(before time.Time, limit int) (int, error) {
	pruned := 0
	err := s.db.Update(func(tx *bolt.Tx) error {
		var due [][]byte
		c := tx.Bucket(bucketExpiry).Cursor()
		for k, _ := c.First(); k != nil && len(due) < limit; k, _ = c.Next() {
			if int64(binary.BigEndian.Uint64(k)) >= before.Unix() {
				break
			}
			due = append(due, append([]byte(nil), k...))
		}
		for _, k := range due {
			if err := forget(tx, k); err != nil {
				return err
			}
		}
		pruned = len(due)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("prune broker state: %w", err)
	}
	return pruned, nil
}

func forget(tx *bolt.Tx, expiry []byte) error {
	id := expiry[8:]
	for _, bucket := range [][]byte{bucketHistory, bucketTasks} {
		c := tx.Bucket(bucket).Cursor()
		var keys [][]byte
		for k, _ := c.Seek(id); k != nil && string(k[:8]) == string(id); k, _ = c.Next() {
			keys = append(keys, append([]byte(nil), k...))
		}
		for _, k := range keys {
			if err := tx.Bucket(bucket).Delete(k); err != nil {
				return err
			}
		}
	}
	for _, bucket := range [][]byte{bucketEnded, bucketTotals} {
		if err := tx.Bucket(bucket).Delete(id); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketExpiry).Delete(expiry)
}

func put(tx *bolt.Tx, bucket, key []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, data)
}

// lastOf is the highest second number under a lease's id, 0 for none.
func lastOf(b *bolt.Bucket, id uint64) uint64 {
	c := b.Cursor()
	k, _ := c.Seek(number(id + 1))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	if len(k) != 16 || binary.BigEndian.Uint64(k) != id {
		return 0
	}
	return binary.BigEndian.Uint64(k[8:])
}

// countOf counts the records under a lease's id, up to limit. It counts only when there is something to add.
func countOf(b *bolt.Bucket, id uint64, limit int, adding []Task) int {
	n := 0
	if len(adding) == 0 {
		return n
	}
	c := b.Cursor()
	for k, _ := c.Seek(number(id)); k != nil && binary.BigEndian.Uint64(k) == id && n < limit; k, _ = c.Next() {
		n++
	}
	return n
}

func totalsOf(tx *bolt.Tx, id uint64) (Totals, error) {
	var totals Totals
	data := tx.Bucket(bucketTotals).Get(number(id))
	if data == nil {
		return totals, nil
	}
	return totals, json.Unmarshal(data, &totals)
}
