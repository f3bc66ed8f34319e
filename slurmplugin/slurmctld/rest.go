package slurmctld

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// API versions that are tried, newest first. Slurm 22.05 has 36 to 38, 25.11 has 41 to 44.
const newestAPI, oldestAPI = 44, 36

// maxAnswer bounds what is read of one answer: 10,000 nodes are some 10 MB.
const maxAnswer = 512 << 20

// rest reads through slurmrestd. What did not change since the last answer is not sent again: slurmctld compares update_time with
// its own clock, which the diag call tells.
type rest struct {
	base   string
	client *http.Client
	token  func() (string, error)
	user   string

	version int       // 0: not yet known
	since   time.Time // slurmctld's clock at the last successful read
	nodes   []byte    // the last answers
	jobs    []byte
}

var errUnchanged = errors.New("unchanged")

func dialUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}

func (r *rest) read(ctx context.Context) (*View, error) {
	v, err := r.poll(ctx)
	if err != nil {
		r.version, r.since, r.nodes, r.jobs = 0, time.Time{}, nil, nil
	}
	return v, err
}

func (r *rest) poll(ctx context.Context) (*View, error) {
	if r.version == 0 {
		if err := r.discover(ctx); err != nil {
			return nil, err
		}
	}
	clock := r.clock(ctx)
	nodes, errNodes := r.changes(ctx, "nodes")
	jobs, errJobs := r.changes(ctx, "jobs")
	if errors.Is(errNodes, errUnchanged) && errors.Is(errJobs, errUnchanged) {
		r.since = clock
		return nil, nil
	}
	if errNodes == nil {
		r.nodes = nodes
	} else if !errors.Is(errNodes, errUnchanged) {
		return nil, errNodes
	}
	if errJobs == nil {
		r.jobs = jobs
	} else if !errors.Is(errJobs, errUnchanged) {
		return nil, errJobs
	}
	v, err := decodeView(r.nodes, r.jobs)
	if err != nil {
		return nil, err
	}
	if r.since, v.AsOf = clock, clock; clock.IsZero() {
		v.AsOf = time.Now()
	}
	return v, nil
}

// decodeView joins the two answers. Where a version does not tell what is allocated on a node, the jobs' shares do.
func decodeView(nodes, jobs []byte) (*View, error) {
	var v View
	var layouts map[string]layout
	var tells bool
	var err error
	if v.Nodes, layouts, tells, err = decodeNodes(nodes); err != nil {
		return nil, err
	}
	if v.Jobs, err = decodeJobs(jobs, layouts); err != nil {
		return nil, err
	}
	if !tells {
		addUp(&v)
	}
	return &v, nil
}

func addUp(v *View) {
	nodes := make(map[string]*Node, len(v.Nodes))
	for i := range v.Nodes {
		nodes[v.Nodes[i].Name] = &v.Nodes[i]
	}
	for _, job := range v.Jobs {
		for _, share := range job.Nodes {
			n := nodes[share.Node]
			if n == nil {
				continue
			}
			n.AllocatedMiB += share.MiB
			if job.State != "suspended" { // its memory stays, its CPUs are free to Slurm
				n.AllocatedCPUs = min(n.AllocatedCPUs+share.CoreCount*n.cpusPerCore(), n.CPUs)
			}
		}
	}
	for i := range v.Nodes {
		if n := &v.Nodes[i]; n.State == "allocated" && n.AllocatedCPUs > 0 && n.AllocatedCPUs < n.CPUs {
			n.State = "mixed"
		}
	}
}

// discover finds the newest version of the API that answers a ping.
func (r *rest) discover(ctx context.Context) error {
	var last error
	for r.version = newestAPI; r.version >= oldestAPI; r.version-- {
		_, err := r.get(ctx, "ping", time.Time{})
		if err == nil {
			return nil
		}
		last = err
		var status *statusError
		if !errors.As(err, &status) || status.code != http.StatusNotFound {
			break
		}
	}
	r.version = 0
	return fmt.Errorf("find an API version of slurmrestd at %s: %w", r.base, last)
}

// clock is slurmctld's time in whole seconds. Zero, when it does not tell, means that everything is sent the next time.
func (r *rest) clock(ctx context.Context) time.Time {
	body, err := r.get(ctx, "diag", time.Time{})
	if err != nil {
		return time.Time{}
	}
	var answer struct {
		Statistics struct {
			ReqTime looseNumber `json:"req_time"`
		} `json:"statistics"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return time.Time{}
	}
	return answer.Statistics.ReqTime.time()
}

// changes asks for what changed since the last answer, and for everything when slurmrestd cannot tell: 22.05 fails with an unspecified error
// when a node has changed and its partition has not, that is at each start and end of a job.
func (r *rest) changes(ctx context.Context, what string) ([]byte, error) {
	body, err := r.get(ctx, what, r.since)
	var status *statusError
	if !r.since.IsZero() && errors.As(err, &status) && status.code == http.StatusInternalServerError {
		return r.get(ctx, what, time.Time{})
	}
	return body, err
}

// statusError is an answer other than 200 and 304.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

func (r *rest) get(ctx context.Context, what string, since time.Time) ([]byte, error) {
	url := fmt.Sprintf("%s/slurm/v0.0.%d/%s", r.base, r.version, what)
	if !since.IsZero() {
		url += fmt.Sprintf("?update_time=%d", since.Unix())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if err := r.authenticate(req); err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, errUnchanged
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode, fmt.Sprintf("get %s: %s: %s", url, resp.Status, firstError(body))}
	}
	return body, nil
}

func (r *rest) authenticate(req *http.Request) error {
	token, err := r.token()
	if err != nil || token == "" {
		return err
	}
	req.Header.Set("X-Slurm-User-Token", token)
	if r.user != "" {
		req.Header.Set("X-Slurm-User-Name", r.user)
	}
	return nil
}

// firstError takes what slurmrestd says is wrong out of its answer.
func firstError(body []byte) string {
	var answer struct {
		Errors []struct {
			Error       string `json:"error"`
			Description string `json:"description"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) > 0 {
		return strings.TrimSpace(answer.Errors[0].Error + " " + answer.Errors[0].Description)
	}
	return strings.TrimSpace(string(body[:min(len(body), 200)]))
}
