package sandbox

import (
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/api/launcher"
)

func TestAdmit(t *testing.T) {
	allowed := []string{"/dev/null", "/dev/infiniband/uverbs*"}
	for name, c := range map[string]struct {
		change func(*launcher.Spec)
		field  string // that the refusal names; "" means admitted
	}{
		"ordinary":             {change: func(*launcher.Spec) {}},
		"allowed device":       {change: func(s *launcher.Spec) { s.Devices = []string{"/dev/null"} }},
		"longest id":           {change: func(s *launcher.Spec) { s.ID = strings.Repeat("a", 64) }},
		"no id":                {field: "id", change: func(s *launcher.Spec) { s.ID = "" }},
		"id too long":          {field: "id", change: func(s *launcher.Spec) { s.ID = strings.Repeat("a", 65) }},
		"id climbs":            {field: "id", change: func(s *launcher.Spec) { s.ID = ".." }},
		"id is a path":         {field: "id", change: func(s *launcher.Spec) { s.ID = "a/b" }},
		"id is an option":      {field: "id", change: func(s *launcher.Spec) { s.ID = "-rf" }},
		"id with a line end":   {field: "id", change: func(s *launcher.Spec) { s.ID = "a\n" }},
		"root":                 {field: "uid", change: func(s *launcher.Spec) { s.UID = 0 }},
		"nobody at all":        {field: "uid", change: func(s *launcher.Spec) { s.UID = ^uint32(0) }},
		"root's group":         {field: "gid", change: func(s *launcher.Spec) { s.GID = 0 }},
		"root's group besides": {field: "groups", change: func(s *launcher.Spec) { s.Groups = []uint32{5, 0} }},
		"too many groups":      {field: "groups", change: func(s *launcher.Spec) { s.Groups = make([]uint32, 65) }},
		"too little CPU":       {field: "milli_cpus", change: func(s *launcher.Spec) { s.MilliCPUs = 9 }},
		"too much CPU":         {field: "milli_cpus", change: func(s *launcher.Spec) { s.MilliCPUs = 1024001 }},
		"no memory":            {field: "memory_bytes", change: func(s *launcher.Spec) { s.MemoryBytes = 0 }},
		"negative memory":      {field: "memory_bytes", change: func(s *launcher.Spec) { s.MemoryBytes = -1 }},
		"negative tmp":         {field: "tmp_bytes", change: func(s *launcher.Spec) { s.TmpBytes = -1 }},
		"tmp above memory":     {field: "tmp_bytes", change: func(s *launcher.Spec) { s.TmpBytes = s.MemoryBytes + 1 }},
		"no tmp":               {field: "tmp_bytes", change: func(s *launcher.Spec) { s.TmpBytes = 0 }},
		"no processes":         {field: "pids", change: func(s *launcher.Spec) { s.PIDs = 0 }},
		"unlimited processes":  {field: "pids", change: func(s *launcher.Spec) { s.PIDs = -1 }},
		"negative CPU":         {field: "cpus", change: func(s *launcher.Spec) { s.CPUs = []int{0, -1} }},
		"CPU beyond all":       {field: "cpus", change: func(s *launcher.Spec) { s.CPUs = []int{1 << 20} }},
		"device not allowed":   {field: "devices", change: func(s *launcher.Spec) { s.Devices = []string{"/dev/mem"} }},
		"device climbs":        {field: "devices", change: func(s *launcher.Spec) { s.Devices = []string{"/dev/infiniband/uverbs0/../../mem"} }},
		"device is a pattern":  {field: "devices", change: func(s *launcher.Spec) { s.Devices = []string{"/dev/infiniband/uverbs*"} }},
		"device not in /dev":   {field: "devices", change: func(s *launcher.Spec) { s.Devices = []string{"/etc/passwd"} }},
	} {
		t.Run(name, func(t *testing.T) {
			s := spec("ok-1")
			c.change(&s)
			err := admit(s, allowed)
			if (err == nil) != (c.field == "") || err != nil && !strings.HasPrefix(err.Error(), c.field+" ") {
				t.Errorf("%+v: %v, want a refusal of %q", s, err, c.field)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	good := Config{RunDir: "/run/gleaner", Libexec: "/usr/libexec/gleaner", CgroupParent: "gleaner", Node: "n1.cluster"}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"good":                 {change: func(*Config) {}},
		"relative run dir":     {want: "run directory", change: func(c *Config) { c.RunDir = "run" }},
		"run dir is /":         {want: "run directory", change: func(c *Config) { c.RunDir = "/" }},
		"no libexec":           {want: "libexec", change: func(c *Config) { c.Libexec = "" }},
		"empty parent":         {want: "cgroup parent", change: func(c *Config) { c.CgroupParent = "" }},
		"parent climbs":        {want: "cgroup parent", change: func(c *Config) { c.CgroupParent = ".." }},
		"parent is a path":     {want: "cgroup parent", change: func(c *Config) { c.CgroupParent = "system.slice/x" }},
		"empty node":           {want: "node", change: func(c *Config) { c.Node = "" }},
		"node climbs":          {want: "node", change: func(c *Config) { c.Node = "../slurm" }},
		"device outside /dev":  {want: "device", change: func(c *Config) { c.Devices = []string{"/sys/x"} }},
		"device a bad pattern": {want: "device", change: func(c *Config) { c.Devices = []string{"/dev/["} }},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			if err := validate(cfg); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	for milli, want := range map[int][2]int64{10: {1000, 100_000}, 99: {9900, 100_000}, 100: {1000, 10_000}, 1000: {10_000, 10_000}, 1024000: {10_240_000, 10_000}} {
		if q, period := quota(milli); q != want[0] || int64(period) != want[1] {
			t.Errorf("%d thousandths: %d per %d, want %v", milli, q, period, want)
		}
	}
}
