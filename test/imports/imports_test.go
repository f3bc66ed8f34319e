// Package imports holds the rules of who may import whom, each with its reason, as tests over the whole module.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gleaner-hpc/gleaner"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Name, Dir string
	Imports, Deps         []string
	GoFiles, CgoFiles     []string
	Standard              bool
}

// rule forbids packages below from to import packages below any of never. Patterns are folders of this module, or import paths
// when they contain a dot in their first part.
type rule struct {
	name       string
	from       []string
	except     []string // below from, but free of the rule
	never      []string
	allow      []string // below never, but allowed
	transitive bool     // nor through others
	reason     string
}

const (
	runc = "github.com/opencontainers/runc"
	grpc = "google.golang.org/grpc"
)

var everything = []string{""}

var rules = []rule{
	{
		name: "agent alone", from: []string{"agent"}, never: []string{"broker", "executor", "client", "cmd"}, transitive: true,
		reason: "the four roles meet in api, so that each can be replaced, restarted and tested without the others",
	},
	{
		name: "broker alone", from: []string{"broker"}, never: []string{"agent", "executor", "client", "cmd"}, transitive: true,
		reason: "the four roles meet in api",
	},
	{
		name: "executor alone", from: []string{"executor"}, never: []string{"agent", "broker", "client", "cmd"}, transitive: true,
		reason: "the four roles meet in api, and what runs in a sandbox carries no code of daemons",
	},
	{
		name: "client alone", from: []string{"client"}, never: []string{"agent", "broker", "executor", "cmd"}, transitive: true,
		reason: "the four roles meet in api, and users link the client into their programs",
	},
	{
		name: "libcontainer in one place", from: everything, except: []string{"executor/sandbox"}, never: []string{runc},
		reason: "libcontainer runs C before main in every binary that links it; one package knows it",
	},
	{
		name: "libcontainer in one binary", from: everything, except: []string{"executor/sandbox", "cmd/launch"}, never: []string{runc}, transitive: true,
		reason: "only the launcher is privileged and re-executes itself; no other binary may carry nsenter",
	},
	{
		name: "sandbox for the launcher alone", from: everything, except: []string{"cmd/launch", "executor/sandbox", "test"}, never: []string{"executor/sandbox"}, transitive: true,
		reason: "it makes sandboxes as root; everybody else asks the launcher",
	},
	{
		name: "api is the bottom", from: []string{"api"}, never: everything, allow: []string{"api"},
		reason: "contracts depend on nobody that they bind",
	},
	{
		name: "policies stand alone", from: []string{"policies"}, except: []string{"policies/plugin"}, never: everything, allow: []string{"policies"},
		reason: "a site writes its own policy against this package: whatever it shows has to be its own or the standard library's",
	},
	{
		name: "plugins of policies know the wire alone", from: []string{"policies/plugin"}, never: everything, allow: []string{"policies", "api"},
		reason: "a site builds its plugin from the contract and what carries it",
	},
	{
		name: "report stands below", from: []string{"report"}, never: everything, allow: []string{"report", "api"},
		reason: "a report is made of records, wherever they come from",
	},
	{
		name: "simulate decides with what runs", from: []string{"simulate"}, never: everything,
		allow:  []string{"simulate", "policies", "agent/ledger", "agent/evict", "agent/coreset", "broker/placement", "slurmplugin/hostlist", "api"},
		reason: "it joins the pure parts of agent and broker, and must never reach what acts",
	},
	{
		name: "leaves", from: []string{"config", "identity", "fabric"}, never: everything, allow: []string{"api", "config", "identity", "fabric"},
		reason: "arrows run from roles to leaves, never back",
	},
	{
		name: "slurmplugin reads and decides nothing", from: []string{"slurmplugin"}, never: []string{"agent", "broker", "executor", "client", "policies", "report", "cmd"}, transitive: true,
		reason: "what Slurm says is the same whoever asks",
	},
	{
		name: "cmd is the top", from: everything, except: []string{"cmd"}, never: []string{"cmd"},
		reason: "cmd wires; what is worth importing belongs to a package",
	},
	{
		name: "tests at the top", from: everything, except: []string{"test"}, never: []string{"test"},
		reason: "the product does not know its harness",
	},
	{
		name: "lean sandbox binaries", from: []string{"cmd/executor", "cmd/launch"}, never: []string{grpc, "github.com/spf13/cobra", "modernc.org/sqlite", "go.etcd.io/bbolt"}, transitive: true,
		reason: "they start once per executor: a 28 MB launcher costs 4 to 13 ms a start, and a tenant can read the executor",
	},
	{
		name: "lean agent", from: []string{"agent", "cmd/gleaner-agentd"}, never: []string{"modernc.org/sqlite", "go.etcd.io/bbolt", "broker"}, transitive: true,
		reason: "an idle agent has 32 MiB",
	},
}

func TestRules(t *testing.T) {
	packages := list(t)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) {
			for _, p := range packages {
				if !below(p.ImportPath, r.from) || below(p.ImportPath, r.except) {
					continue
				}
				imports := p.Imports
				if r.transitive {
					imports = p.Deps
				}
				for _, i := range imports {
					if below(i, r.never) && !below(i, r.allow) && i != p.ImportPath {
						t.Errorf("%s imports %s: %s", short(p.ImportPath), short(i), r.reason)
					}
				}
			}
		})
	}
}

// TestRulesBite makes sure that a pattern with a typo does not pass for ever: every folder named in a rule exists or belongs to
// another module.
func TestRulesBite(t *testing.T) {
	packages := list(t)
	exists := func(pattern string) bool {
		return slices.ContainsFunc(packages, func(p pkg) bool { return below(p.ImportPath, []string{pattern}) })
	}
	for _, r := range rules {
		for _, pattern := range slices.Concat(r.from, r.never, r.allow, r.except) {
			if !foreign(pattern) && !exists(pattern) {
				t.Errorf("rule %q: no package lies below %q", r.name, pattern)
			}
		}
	}
}

func TestCgo(t *testing.T) {
	for _, p := range list(t) {
		if len(p.CgoFiles) > 0 && !below(p.ImportPath, []string{"fabric", "identity"}) {
			t.Errorf(`%s imports "C" in %v: C is behind one bindings file of the data plane and the munge wrapper`, short(p.ImportPath), p.CgoFiles)
		}
		if len(p.CgoFiles) > 1 {
			t.Errorf(`%s imports "C" in %v: one file, so that C types stay in it`, short(p.ImportPath), p.CgoFiles)
		}
	}
}

// TestPackageComments wants one package comment per package, in the place where a reader looks for the contract.
func TestPackageComments(t *testing.T) {
	for _, p := range list(t) {
		var documented []string
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil && !strings.HasSuffix(name, ".pb.go") {
				documented = append(documented, name)
			}
		}
		if len(documented) != 1 && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has package comments in %v: want one", short(p.ImportPath), documented)
		}
	}
}

func TestNames(t *testing.T) {
	bad := []string{"util", "utils", "common", "types", "helpers", "misc", "base"}
	for _, p := range list(t) {
		if slices.Contains(bad, path.Base(p.ImportPath)) {
			t.Errorf("%s: a package is a noun that says what it owns", short(p.ImportPath))
		}
		if p.Name == "main" && !below(p.ImportPath, []string{"cmd", "test", "demo", "contrib"}) {
			t.Errorf("%s is a program: programs belong to cmd", short(p.ImportPath))
		}
	}
}

// list returns the module's packages.
func list(t *testing.T) []pkg {
	t.Helper()
	watch()
	cmd := exec.Command("go", "list", "-deps", "-e", "-tags", "seccomp",
		"-json=ImportPath,Name,Dir,Imports,Deps,GoFiles,CgoFiles,Standard", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.Bytes())
	}
	var packages []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/") {
			packages = append(packages, p)
		}
	}
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages of %s", len(packages), module)
	}
	return packages
}

// watch opens every folder of the module: go test would call these tests cached until one of the files that they open themselves
// changes, and knows nothing of what go list reads.
func watch() {
	_ = filepath.WalkDir("../..", func(dir string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == "build" || strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..") {
			return fs.SkipDir
		}
		return nil // what vanishes meanwhile is no package
	})
}

// below says whether an import path lies at or below one of the patterns.
func below(importPath string, patterns []string) bool {
	for _, pattern := range patterns {
		full := pattern
		switch {
		case pattern == "":
			full = module
		case !foreign(pattern):
			full = module + "/" + pattern
		}
		if importPath == full || strings.HasPrefix(importPath, full+"/") {
			return true
		}
	}
	return false
}

func foreign(pattern string) bool {
	first, _, _ := strings.Cut(pattern, "/")
	return strings.Contains(first, ".")
}

func short(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }
