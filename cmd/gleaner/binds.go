package main

import (
	"fmt"
	"path"
	"strings"

	"github.com/gleaner-hpc/gleaner/client"
)

// binds is the flag --bind.
type binds []client.Bind

func (*binds) Type() string { return "SRC[:DST][:rw]" }

func (b *binds) String() string {
	var all []string
	for _, one := range *b {
		text := one.Source + ":" + one.Target
		if one.Writable {
			text += ":rw"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// Set reads one bind. A colon in a path cannot be written.
func (b *binds) Set(text string) error {
	rest, writable := strings.CutSuffix(text, ":rw")
	rest = strings.TrimSuffix(rest, ":ro")
	source, target, given := strings.Cut(rest, ":")
	if !given {
		target = source
	}
	for _, p := range []string{source, target} {
		if !path.IsAbs(p) || strings.Contains(p, ":") {
			return fmt.Errorf("%q: want absolute paths, as in /home/me/data:/data/in:rw", text)
		}
	}
	*b = append(*b, client.Bind{Source: path.Clean(source), Target: path.Clean(target), Writable: writable})
	return nil
}
