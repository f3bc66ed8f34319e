package broker

import (
	"encoding/hex"
	"time"

	"github.com/gleaner-hpc/gleaner/broker/audit"
	"github.com/gleaner-hpc/gleaner/broker/lease"
)

// line is an entry that says what a lease is.
func line(now time.Time, event audit.Event, id uint64, r *lease.Request) audit.Entry {
	return audit.Entry{
		Time: now.UTC(), Event: event, Lease: id, UID: r.UID, User: r.User, Account: r.Account, Job: r.Job, Function: r.Function.Symbol,
		Digest: hex.EncodeToString(r.Function.Digest), Image: r.Image, Count: r.Executors, Cores: r.Each.Cores, Memory: r.Each.MemoryBytes, GPUs: r.Each.GPUs,
	}
}

// audited notes what the audit log is to say of an event.
func (s *state) audited(e *lease.Event) {
	r := &e.Lease.Request
	var entry audit.Entry
	switch {
	case e.Ending():
		entry = line(e.Time, audit.LeaseEnded, e.Lease.ID, r)
		entry.Reason, entry.Detail = reasonName(e.Reason), e.Detail
	case e.Kind == lease.Left:
		entry = line(e.Time, audit.ExecutorEnded, e.Lease.ID, r)
		entry.Executor, entry.Node, entry.Count = e.Executor.ID, e.Executor.Node, 0
		entry.Reason, entry.Detail = reasonName(e.Reason), e.Detail
	default:
		return
	}
	if d := e.Lease.ImageDigest; d != "" {
		entry.Image = d
	}
	s.note(entry)
}

func (s *state) auditedGrant(now time.Time, l *lease.Lease) {
	s.granting = true
	s.note(line(now, audit.LeaseGranted, l.ID, &l.Request))
}

func (s *state) auditedStart(now time.Time, x *lease.Executor) {
	l := s.table.Get(x.Lease)
	if l == nil {
		return
	}
	entry := line(now, audit.ExecutorStarted, l.ID, &l.Request)
	entry.Executor, entry.Node, entry.Count = x.ID, x.Node, 0
	s.note(entry)
}

func (s *state) auditedDenial(now time.Time, r *lease.Request, d *denial, why string) {
	entry := line(now, audit.LeaseDenied, 0, r)
	entry.Reason, entry.Detail = d.rule, why
	s.note(entry)
}

func (s *state) note(entry audit.Entry) {
	if s.cfg.Audit != nil {
		s.lines = append(s.lines, entry)
	}
}

// writeAudit writes what the batch has noted, before any of it can be seen. It returns an error when the batch grants leases that
// may not go without.
func (s *state) writeAudit() error {
	if s.cfg.Audit == nil {
		return nil
	}
	err := s.cfg.Audit.Append(s.lines)
	granting := s.granting
	s.lines, s.granting = nil, false
	switch {
	case err != nil && s.auditError == nil:
		s.cfg.Log.Error("cannot write the audit log", "error", err, "leasing", s.cfg.AuditContinue)
		s.metrics.auditFailing.Set(1)
	case err == nil && s.auditError != nil:
		s.cfg.Log.Info("the audit log can be written again")
		s.metrics.auditFailing.Set(0)
		s.dirty = true
	}
	if s.auditError = err; err != nil && granting && !s.cfg.AuditContinue {
		return err
	}
	return nil
}

// holdsStarts says that nothing may be started, because the audit log could not say so.
func (s *state) holdsStarts() bool { return s.auditError != nil && !s.cfg.AuditContinue }
