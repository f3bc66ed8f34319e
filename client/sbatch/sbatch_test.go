package sbatch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		line string
		want Command
	}{
		"ours are taken out": {"-n 1 --executors 8 --mem-per-executor=512M job.sh a b",
			Command{Options: []string{"-n", "1"}, Script: "job.sh", Args: []string{"a", "b"}, Wish: Wish{Executors: "8", Memory: "512M"}}},
		"what follows the script is the script's": {"job.sh --executors 8",
			Command{Script: "job.sh", Args: []string{"--executors", "8"}}},
		"flags take nothing": {"--hold --exclusive -H -vQ job.sh",
			Command{Options: []string{"--hold", "--exclusive", "-H", "-vQ"}, Script: "job.sh"}},
		"joined short options": {"-n4 -vN 2 -pdebug job.sh",
			Command{Options: []string{"-n4", "-vN", "2", "-pdebug"}, Script: "job.sh"}},
		"wrap": {"--executors 2 --wrap=true -J x",
			Command{Options: []string{"--wrap=true", "-J", "x"}, Wrapped: true, Wish: Wish{Executors: "2"}}},
		"heterogeneous": {"-n1 : -n2 --executors 3 job.sh",
			Command{Options: []string{"-n1", ":", "-n2"}, Script: "job.sh", Wish: Wish{Executors: "3"}}},
		"end of options": {"--executors 3 -- job.sh -x",
			Command{Options: []string{"--"}, Script: "job.sh", Args: []string{"-x"}, Wish: Wish{Executors: "3"}}},
		"script on standard input": {"--cores-per-executor 2 --export NONE",
			Command{Options: []string{"--export", "NONE"}, Export: "NONE", Wish: Wish{Cores: "2"}}},
		"a function": {"--function ./mine.so:f -n1 job.sh",
			Command{Options: []string{"-n1"}, Script: "job.sh", Wish: Wish{Function: "./mine.so:f"}}},
		"a spinning budget": {"--spin=never --spin always job.sh", Command{Script: "job.sh", Wish: Wish{Spin: "always"}}},
		"no-kill":           {"-k job.sh", Command{Options: []string{"-k"}, Script: "job.sh"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(strings.Fields(test.line))
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range []*[]string{&got.Options, &got.Args} {
				if len(*list) == 0 {
					*list = nil
				}
			}
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Parse([]string{"--executors"}); err == nil {
		t.Error("--executors without a value")
	}
}

func TestReadDirectives(t *testing.T) {
	script := "#!/bin/bash\n#SBATCH -n 1 --export=NONE\n#GLEANER --executors=8\n\n#GLEANER --mem-per-executor '1G' --spin=20us\n# a comment\necho\n#GLEANER --executors 99\n"
	got, err := ReadDirectives([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	want := Directives{Wish: Wish{Executors: "8", Memory: "1G", Spin: "20us"}, Export: "NONE"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"#GLEANER --ntasks=3", "#GLEANER --executors", "#GLEANER word", "#GLEANER '", "#GLEANER --executors=many", "#GLEANER --mem-per-executor=1X", "#GLEANER --spin=soon"} {
		if _, err := ReadDirectives([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "line 1: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCall(t *testing.T) {
	wish := Wish{Executors: "8"}
	keep := []string{"GLEANER_BROKER"}
	tests := map[string]struct {
		line, script, env, want string
	}{
		"environment goes by itself":  {"-n1 job.sh a", "", "", "-n1 job.sh a"},
		"export all":                  {"--export=ALL,X=1 job.sh", "", "", "--export=ALL,X=1 job.sh"},
		"export none":                 {"--export=NONE job.sh", "", "", "--export=NONE --export=GLEANER_EXECUTORS=8,GLEANER_BROKER job.sh"},
		"export a list":               {"--export A,B job.sh", "", "", "--export A,B --export=A,B,GLEANER_EXECUTORS=8,GLEANER_BROKER job.sh"},
		"export in the script":        {"job.sh", "#SBATCH --export=A", "", "--export=A,GLEANER_EXECUTORS=8,GLEANER_BROKER job.sh"},
		"the environment's wins":      {"job.sh", "#SBATCH --export=A", "B", "--export=B,GLEANER_EXECUTORS=8,GLEANER_BROKER job.sh"},
		"before the end of options":   {"--export=A -- job.sh", "", "", "--export=A --export=A,GLEANER_EXECUTORS=8,GLEANER_BROKER -- job.sh"},
		"wrapped, with nothing after": {"--wrap=x", "", "", "--wrap=x"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(strings.Fields(test.line))
			if err != nil {
				t.Fatal(err)
			}
			d, err := ReadDirectives([]byte(test.script))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(c.Call(d, wish, keep, test.env), " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, bad := range []Wish{{Executors: "0"}, {Executors: "x"}, {Cores: "2000"}, {Memory: "much"}, {Function: "a,b.so:f"}} {
		if bad.Check() == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	if err := (Wish{Executors: "8", Memory: "512M", Cores: "2", Function: "mine.so:f"}).Check(); err != nil {
		t.Error(err)
	}
}

func FuzzReadDirectives(f *testing.F) {
	f.Add([]byte("#!/bin/sh\n#GLEANER --executors=8\n#SBATCH -n 2\n"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if d, err := ReadDirectives(script); err == nil {
			_ = d.Wish.Check()
		}
	})
}
