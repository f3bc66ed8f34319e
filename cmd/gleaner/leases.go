package main

import (
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
)

func (a *app) leasesCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "leases", Short: "List your leases; operators see everybody's", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			broker, err := a.dial()
			if err != nil {
				return err
			}
			defer broker.Close()
			response, err := broker.Leases().List(c.Context(), &api.ListRequest{IncludeEnded: all})
			if err != nil {
				return client.Describe("list leases", err)
			}
			return a.print(leaseListing(response.GetLeases()))
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also those that have ended")
	return c
}

type leaseJSON struct {
	Lease       uint64         `json:"lease"`
	State       string         `json:"state"`
	EndReason   string         `json:"end_reason,omitempty"`
	Detail      string         `json:"detail,omitempty"`
	UID         uint32         `json:"uid"`
	Job         uint32         `json:"job,omitempty"`
	Account     string         `json:"account,omitempty"`
	Function    string         `json:"function"`
	Symbol      string         `json:"symbol"`
	Wanted      uint32         `json:"executors_wanted"`
	Cores       uint32         `json:"cores_per_executor"`
	MemoryBytes uint64         `json:"memory_bytes_per_executor"`
	GPUs        uint32         `json:"gpus_per_executor"`
	Executors   []executorJSON `json:"executors"`
	Evictions   uint32         `json:"evictions"`
	Polled      float64        `json:"polled_seconds"` // by its executors, without serving
	Image       string         `json:"image,omitempty"`
	ImageDigest string         `json:"image_digest,omitempty"`
	Created     string         `json:"created,omitempty"`
	Expires     string         `json:"expires,omitempty"`
	Ended       string         `json:"ended,omitempty"`
}

type executorJSON struct {
	ID   string `json:"id"`
	Node string `json:"node"`
}

type leasesJSON struct {
	Schema string      `json:"schema"`
	Leases []leaseJSON `json:"leases"`
}

func leaseListing(leases []*api.Lease) listing {
	l := listing{
		header:  []string{"lease", "user", "job", "function", "state", "exec", "cores", "memory", "evicted", "polled", "created", "note"},
		numeric: map[int]bool{0: true, 2: true, 5: true, 6: true, 7: true, 8: true, 9: true},
		csvNames: []string{"lease", "uid", "job", "account", "function", "symbol", "state", "end_reason", "executors", "executors_wanted", "cores_per_executor",
			"memory_bytes_per_executor", "gpus_per_executor", "evictions", "created", "expires", "ended", "detail", "polled_seconds", "image", "image_digest"},
	}
	document := leasesJSON{Schema: "gleaner.leases/1", Leases: []leaseJSON{}}
	for _, lease := range leases {
		j := leaseDocument(lease)
		document.Leases = append(document.Leases, j)
		l.rows = append(l.rows, leaseRow(lease, j))
		l.machine = append(l.machine, []string{fmt.Sprint(j.Lease), fmt.Sprint(j.UID), fmt.Sprint(j.Job), j.Account, j.Function, j.Symbol, j.State, j.EndReason,
			fmt.Sprint(len(j.Executors)), fmt.Sprint(j.Wanted), fmt.Sprint(j.Cores), fmt.Sprint(j.MemoryBytes), fmt.Sprint(j.GPUs), fmt.Sprint(j.Evictions),
			j.Created, j.Expires, j.Ended, j.Detail, precise(j.Polled), j.Image, j.ImageDigest})
	}
	l.document = document
	return l
}

func leaseDocument(lease *api.Lease) leaseJSON {
	r := lease.GetRequest()
	j := leaseJSON{
		Lease: lease.GetId(), State: strings.ToLower(lease.GetState().String()), Detail: lease.GetDetail(), UID: lease.GetUid(),
		Job: lease.GetJobId(), Account: lease.GetAccount(), Function: r.GetFunction().GetName(), Symbol: r.GetFunction().GetSymbol(),
		Wanted: r.GetExecutors(), Cores: r.GetCores(), MemoryBytes: r.GetMemoryBytes(), GPUs: r.GetGpus(), Executors: []executorJSON{},
		Evictions: lease.GetEvictions(), Polled: lease.GetSpin().AsDuration().Seconds(), Created: rfc3339(lease.GetCreated()), Expires: rfc3339(lease.GetExpires()), Ended: rfc3339(lease.GetEnded()),
		Image: r.GetImage(), ImageDigest: lease.GetImageDigest(),
	}
	if lease.GetState() == api.LeaseState_ENDED {
		j.EndReason = strings.ToLower(lease.GetEndReason().String())
	}
	for _, e := range lease.GetExecutors() {
		j.Executors = append(j.Executors, executorJSON{e.GetId(), e.GetNode()})
	}
	return j
}

func leaseRow(lease *api.Lease, j leaseJSON) []string {
	state, job := j.State, ""
	if j.EndReason != "" {
		state = client.ReasonText(lease.GetEndReason())
	}
	if j.Job != 0 {
		job = fmt.Sprint(j.Job)
	}
	note := j.Detail
	if lease.GetEndReason() == api.EndReason_RELEASED {
		note = "" // the state says it
	}
	if j.Image != "" {
		note = strings.TrimSpace("in " + filepath.Base(j.Image) + shortDigest(j.ImageDigest) + " " + note)
	}
	return []string{fmt.Sprint(j.Lease), userName(j.UID), job, j.Function + ":" + j.Symbol, state,
		fmt.Sprintf("%d/%d", len(j.Executors), j.Wanted), fmt.Sprint(j.Cores), config.FormatMemory(j.MemoryBytes),
		fmt.Sprint(j.Evictions), polled(j.Polled), clock(lease.GetCreated()), note}
}

// shortDigest is enough of a digest to tell two images apart.
func shortDigest(digest string) string {
	if hex := strings.TrimPrefix(digest, "sha256:"); len(hex) > 12 {
		return "@" + hex[:12]
	}
	return ""
}

func precise(seconds float64) string { return strconv.FormatFloat(seconds, 'f', 3, 64) }

// polled is "" for what is not worth a thought.
func polled(s float64) string {
	if s < 0.1 {
		return ""
	}
	return strconv.FormatFloat(s, 'f', 1, 64) + "s"
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func (a *app) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release LEASE...", Short: "End leases", Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ids := make([]uint64, len(args))
			for i, arg := range args {
				id, err := strconv.ParseUint(arg, 10, 64)
				if err != nil {
					return usage("lease %q: want a number, see 'gleaner leases'", arg)
				}
				ids[i] = id
			}
			broker, err := a.dial()
			if err != nil {
				return err
			}
			defer broker.Close()
			for _, id := range ids {
				if _, err := broker.Leases().Release(c.Context(), &api.ReleaseRequest{LeaseId: id}); err != nil {
					return client.Describe(fmt.Sprintf("release lease %d", id), err)
				}
			}
			return nil
		},
	}
}
