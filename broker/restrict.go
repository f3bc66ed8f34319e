package broker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gleaner-hpc/gleaner/broker/lease"
	"github.com/gleaner-hpc/gleaner/broker/rules"
)

// maxDenials and maxDenied bound what is remembered for explain: of one user, and how many users.
const (
	maxDenials = 16
	maxDenied  = 1024
)

// denied is one refusal, as its user may read it later.
type denied struct {
	when      time.Time
	rule, why string
}

// Reload takes the site's rules, and opens the audit log again. Rules hold for requests and placements from now on; what runs stays.
func (b *Broker) Reload(set *rules.Set) error {
	done := make(chan error, 1)
	b.post(func(s *state, _ time.Time) error {
		b.rules.Store(set)
		s.rules, s.dirty = set, true
		var err error
		if s.cfg.Audit != nil {
			err = s.cfg.Audit.Reopen()
		}
		done <- err
		return nil
	})
	select {
	case err := <-done:
		return err
	case <-b.stopped:
		return errors.New("the broker is stopping")
	}
}

// imageNames are by what a rule may name an image: as it is asked for, and by each half of NAME@DIGEST.
func imageNames(image string) []string {
	if image == "" {
		return nil
	}
	name, digest, pinned := strings.Cut(image, "@")
	if !pinned {
		return []string{image}
	}
	return []string{image, name, digest}
}

func subject(r *lease.Request) rules.Subject {
	return rules.Subject{UID: r.UID, User: r.User, Groups: r.Groups, Account: r.Account, Checked: r.Checked, Digest: r.Function.Digest, Images: imageNames(r.Image)}
}

func held(r *lease.Request) rules.Held {
	n := r.Executors
	return rules.Held{Subject: subject(r), Amount: rules.Amount{Executors: n, Cores: n * r.Each.Cores, Memory: uint64(n) * r.Each.MemoryBytes}}
}

// restrict applies the site's rules, and the audit log's need to be written.
func (s *state) restrict(r lease.Request) *denial {
	if s.auditError != nil && !s.cfg.AuditContinue {
		return deny("audit", codes.ResourceExhausted, "the broker cannot write its audit log and leases nothing until it can (audit.on_failure): %v", s.auditError)
	}
	if no := s.rules.Judge(subject(&r)); no != nil {
		return deny(no.Rule, codes.PermissionDenied, "%s", no.Why)
	}
	var living []rules.Held
	for _, l := range s.table.Leases() {
		living = append(living, held(&l.Request))
	}
	if no := s.rules.Exceeded(held(&r), living); no != nil {
		return deny(no.Rule, codes.ResourceExhausted, "%s", no.Why)
	}
	if where := s.rules.Where(subject(&r)); where != nil && s.view != nil && len(s.barred(where)) == len(s.nodes) {
		return deny("infeasible", codes.FailedPrecondition, "no node of the cluster is left by the rules of this site: %s", where.Bars("", nil))
	}
	return nil
}

// barred names the nodes that are no place for a request, with the reason.
func (s *state) barred(where *rules.Where) map[string]string {
	if where == nil {
		return nil
	}
	no := map[string]string{}
	for name, n := range s.nodes {
		var partitions []string
		if n.slurm != nil {
			partitions = n.slurm.Partitions
		}
		if why := where.Bars(name, partitions); why != "" {
			no[name] = why
		}
	}
	return no
}

// remember keeps a refusal for its user's gleaner explain.
func (s *state) remember(now time.Time, uid uint32, d *denial) {
	if _, known := s.denials[uid]; !known && len(s.denials) >= maxDenied {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.denials)), func(a, b uint32) int {
			x, y := s.denials[a], s.denials[b]
			return x[len(x)-1].when.Compare(y[len(y)-1].when)
		})
		delete(s.denials, oldest)
	}
	list := append(s.denials[uid], denied{now, d.rule, status.Convert(d.err).Message()})
	s.denials[uid] = list[max(0, len(list)-maxDenials):]
}

// explainDenials tells a user of what was refused.
func (s *state) explainDenials(uid uint32) (summary string, list []denied) {
	list = s.denials[uid]
	if len(list) == 0 {
		return "No request of yours has been denied since the broker was started.", nil
	}
	last := list[len(list)-1]
	return fmt.Sprintf("Your last denied request was refused by rule %s: %s.", last.rule, last.why), list
}
