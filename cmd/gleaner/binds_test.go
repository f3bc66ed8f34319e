package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gleaner-hpc/gleaner/client"
)

func TestBinds(t *testing.T) {
	for text, want := range map[string]*client.Bind{
		"/home/me":                {Source: "/home/me", Target: "/home/me"},
		"/home/me:rw":             {Source: "/home/me", Target: "/home/me", Writable: true},
		"/home/me:/data/in":       {Source: "/home/me", Target: "/data/in"},
		"/home/me:/data/in:rw":    {Source: "/home/me", Target: "/data/in", Writable: true},
		"/home/me:/data/in:ro":    {Source: "/home/me", Target: "/data/in"},
		"/home/me/../you/":        {Source: "/home/you", Target: "/home/you"},
		"":                        nil,
		"data":                    nil,
		"/home/me:data":           nil,
		"/home/me:/data:/in":      nil,
		"/home/me:/data/in:write": nil,
	} {
		var b binds
		err := b.Set(text)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if want != nil {
			if diff := cmp.Diff(binds{*want}, b); diff != "" {
				t.Errorf("%q: %s", text, diff)
			}
		}
	}
}
