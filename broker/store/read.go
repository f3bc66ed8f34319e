package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// Ended returns an ended lease; nil when there is none, or no more.
func (s *Store) Ended(id uint64) (*lease.Lease, error) {
	var l *lease.Lease
	err := s.db.View(func(tx *bolt.Tx) error {
		if data := tx.Bucket(bucketEnded).Get(number(id)); data != nil {
			l = &lease.Lease{}
			return json.Unmarshal(data, l)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read lease %d: %w", id, err)
	}
	return l, nil
}

// ListEnded returns up to limit ended leases that want accepts, the latest first.
func (s *Store) ListEnded(want func(*lease.Lease) bool, limit int) ([]*lease.Lease, error) {
	var leases []*lease.Lease
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEnded).Cursor()
		for k, data := c.Last(); k != nil && len(leases) < limit; k, data = c.Prev() {
			l := &lease.Lease{}
			if err := json.Unmarshal(data, l); err != nil {
				return err
			}
			if want(l) {
				leases = append(leases, l)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list ended leases: %w", err)
	}
	return leases, nil
}

// History returns what happened to a lease, the oldest first.
func (s *Store) History(id uint64) ([]Entry, error) {
	var entries []Entry
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketHistory).Cursor()
		for k, data := c.Seek(number(id)); k != nil && binary.BigEndian.Uint64(k) == id; k, data = c.Next() {
			var e Entry
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			entries = append(entries, e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history of lease %d: %w", id, err)
	}
	return entries, nil
}

// Task returns the record of one task as it was reported, nil for none, and the totals of its lease.
func (s *Store) Task(id, index uint64) (record []byte, totals Totals, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		record = append(record, tx.Bucket(bucketTasks).Get(pair(id, index))...)
		totals, err = totalsOf(tx, id)
		return err
	})
	if err != nil {
		return nil, totals, fmt.Errorf("read task %d.%d: %w", id, index, err)
	}
	return record, totals, nil
}
