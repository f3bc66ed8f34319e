package main

import (
	"reflect"
	"testing"

	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/policies"
)

func TestBuiltin(t *testing.T) {
	for name, test := range map[string]struct {
		policy config.Policy
		want   policies.Policy
	}{
		"careful":            {config.Policy{Name: "careful", Blind: "lend"}, policies.Careful{}},
		"pressure":           {config.Policy{Name: "pressure", Blind: "refuse"}, policies.Pressure{}},
		"pressure, by leave": {config.Policy{Name: "pressure", Blind: "lend"}, policies.Pressure{LendBlind: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, run, err := newPolicy(&test.policy, nil, nil)
			if !reflect.DeepEqual(got, test.want) || run != nil || err != nil {
				t.Errorf("got %#v, error %v", got, err)
			}
		})
	}
}
