// Package client is Gleaner's Go SDK: acquire a lease for one function, then invoke it on the leftovers of the cluster.
//
//	c, err := client.Dial(client.Config{Broker: "head:7461", Identity: munge})
//	lease, err := c.Acquire(ctx, client.Request{Function: function, Executors: 8, Memory: 512 << 20})
//	defer lease.Release(ctx)
//	result, err := lease.Invoke(ctx, input)
//
// A Lease renews itself, follows the broker's events, connects straight to each executor and forgets those that are gone. Evicted
// is not failed: a task that loses its executor to a Slurm job runs again on another, as often as it takes. Each task ends with
// exactly one result or one final error. A function may therefore run more than once on the same input, and must not mind.
//
// The package never logs, reads no environment and takes part in no decision of the broker. Which executor runs which task is
// decided by package dispatch.
package client
