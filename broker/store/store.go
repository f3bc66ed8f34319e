// Package store keeps what the broker must not forget: the living leases and their executors, the counters, the key that signs
// tokens, which records of which agent are stored, and, for explain and list, ended leases with their history. It is one bbolt
// file; each Update is one transaction, on disk when it returns. It decides nothing. The broker's loop writes, its RPCs read.
package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// Schema is the version of the file's layout.
const Schema = 1

const (
	// MaxHistory and MaxTasks bound what is kept of one lease; what is beyond is counted, not kept.
	MaxHistory = 2000
	MaxTasks   = 2000
)

// ErrBusy is returned when another process has the file open.
var ErrBusy = errors.New("in use by another broker")

// ErrUnusable is wrapped by the errors about a file that is damaged or of a newer version.
var ErrUnusable = errors.New("unusable broker state")

var (
	bucketMeta      = []byte("meta")
	bucketLeases    = []byte("leases")    // living: id → lease
	bucketExecutors = []byte("executors") // of living leases: id → executor
	bucketEnded     = []byte("ended")     // id → lease
	bucketExpiry    = []byte("expiry")    // end time, id → nothing; what to prune first
	bucketHistory   = []byte("history")   // lease, n → Entry
	bucketTasks     = []byte("tasks")     // lease, index → task record as its reporter encoded it
	bucketTotals    = []byte("totals")    // lease → Totals
	bucketNodes     = []byte("nodes")     // name → Node

	keySchema = []byte("schema")
	keyNext   = []byte("next_lease")
	keyKey    = []byte("ed25519")
)

// Store is the open file.
type Store struct {
	db  *bolt.DB
	key ed25519.PrivateKey
}

// Open opens or creates the file; its folder is made with mode 0700. New files get a fresh key pair.
func Open(path string) (s *Store, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	// bbolt checks the pages it opens by panicking on some damage.
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, damaged(path, fmt.Errorf("%v", r))
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w", path, ErrBusy)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, damaged(path, err)
	case err != nil:
		return nil, fmt.Errorf("open broker state %s: %w", path, err)
	}
	s = &Store{db: db}
	if err := db.Update(s.prepare); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("open broker state %s: %w", path, err)
	}
	return s, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("%w: %s is damaged: %w; move it away and start the broker again: running executors are stopped and their tasks run again, history is lost", ErrUnusable, path, err)
}

// prepare checks the version and makes what a new file lacks.
func (s *Store) prepare(tx *bolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	if saved := meta.Get(keySchema); saved != nil {
		if len(saved) != 8 {
			return fmt.Errorf("%w: schema version of %d bytes", ErrUnusable, len(saved))
		}
		if version := binary.BigEndian.Uint64(saved); version > Schema {
			return fmt.Errorf("%w: written by a newer Gleaner (schema %d, this one knows %d): start that version, or move the file away", ErrUnusable, version, Schema)
		}
	}
	for _, name := range [][]byte{bucketLeases, bucketExecutors, bucketEnded, bucketExpiry, bucketHistory, bucketTasks, bucketTotals, bucketNodes} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	seed := meta.Get(keyKey)
	if seed == nil {
		seed = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return err
		}
		if err := meta.Put(keyKey, seed); err != nil {
			return err
		}
	}
	if len(seed) != ed25519.SeedSize {
		return fmt.Errorf("%w: key of %d bytes", ErrUnusable, len(seed))
	}
	s.key = ed25519.NewKeyFromSeed(bytes.Clone(seed))
	return meta.Put(keySchema, number(Schema))
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Key signs lease tokens. It is made once for each file and never leaves the broker.
func (s *Store) Key() ed25519.PrivateKey { return s.key }

// Node says which records of an agent are stored.
type Node struct {
	Boot   string `json:"boot"` // of the agent process
	Record uint64 `json:"record"`
}

// State is what a broker starts with.
type State struct {
	Next      uint64 // lowest lease id never used
	Leases    []*lease.Lease
	Executors []*lease.Executor
	Nodes     map[string]Node
}

// Load reads what a broker starts with.
func (s *Store) Load() (State, error) {
	state := State{Next: 1, Nodes: map[string]Node{}}
	err := s.db.View(func(tx *bolt.Tx) error {
		if next := tx.Bucket(bucketMeta).Get(keyNext); len(next) == 8 {
			state.Next = binary.BigEndian.Uint64(next)
		}
		if err := each(tx, bucketLeases, func(_ []byte, l *lease.Lease) { state.Leases = append(state.Leases, l) }); err != nil {
			return err
		}
		if err := each(tx, bucketExecutors, func(_ []byte, x *lease.Executor) { state.Executors = append(state.Executors, x) }); err != nil {
			return err
		}
		return each(tx, bucketNodes, func(name []byte, n *Node) { state.Nodes[string(name)] = *n })
	})
	if err != nil {
		return State{}, fmt.Errorf("load broker state: %w", err)
	}
	return state, nil
}

// each decodes every value of a bucket.
func each[T any](tx *bolt.Tx, bucket []byte, take func(key []byte, v *T)) error {
	return tx.Bucket(bucket).ForEach(func(k, data []byte) error {
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("%w: %s %x: %w", ErrUnusable, bucket, k, err)
		}
		take(k, v)
		return nil
	})
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func pair(a, b uint64) []byte { return binary.BigEndian.AppendUint64(number(a), b) }
