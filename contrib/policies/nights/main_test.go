package main

import (
	"testing"
	"time"

	"github.com/gleaner-hpc/gleaner/policies"
	"github.com/gleaner-hpc/gleaner/policies/policytest"
)

var example = nights{interactive: []string{"debug"}, from: 8, to: 19, zone: time.UTC}

func TestConforms(t *testing.T) { policytest.Run(t, example) }

func TestByDay(t *testing.T) {
	node := func(partition string) policies.Node {
		return policies.Node{Name: partition, Partitions: []string{partition}, Total: policies.Resources{Cores: 4, MemoryBytes: 4}, Free: policies.Resources{Cores: 4, MemoryBytes: 4}}
	}
	for hour, lent := range map[int]bool{7: true, 8: false, 18: false, 19: true} {
		v := policies.View{Now: time.Date(2026, 11, 2, hour, 0, 0, 0, time.UTC), Nodes: []policies.Node{node("debug"), node("batch")}}
		offers := example.Harvest(v)
		if got := offers[0].Resources.Cores > 0; got != lent || offers[1].Resources.Cores == 0 {
			t.Errorf("at %d: %+v", hour, offers)
		}
	}
}
