package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gleaner-hpc/gleaner/api"
	"github.com/gleaner-hpc/gleaner/client"
)

// answerNotice is how long the broker may take to admit a lease before the user is told why.
const answerNotice = 500 * time.Millisecond

// await says what a request for a lease of a Slurm job waits for, until stop is called. Whose job it is decides on the lease, and a
// broker that has to ask slurmctld first answers late.
func (a *app) await(ctx context.Context, broker *client.Client, job uint32) (stop func()) {
	if job == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
			return
		case <-time.After(answerNotice):
		}
		response, err := broker.Cluster().Nodes(ctx, &api.NodesRequest{})
		if err != nil {
			return // the request itself says what is wrong
		}
		why := ""
		if text := response.GetSlurmError(); text != "" {
			why = ", which cannot be read: " + text
		}
		if line := fmt.Sprintf("gleaner: the broker waits to hear whose job %d is from slurmctld%s", job, why); line != a.awaited {
			a.awaited = line
			fmt.Fprintln(a.stderr, line)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
