// Package verbs runs the data path's suite on a verbs device for which no hardware is needed: soft-RoCE in a virtual machine. The
// suite itself is that of packages fabric and executor; run builds it here and runs it there.
package verbs

import (
	"testing"

	"github.com/gleaner-hpc/gleaner/test/vm"
)

func TestSoftRoCE(t *testing.T) { vm.Suite(t, "./run") }
