package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gleaner-hpc/gleaner/config"
)

var (
	good = sha256.Sum256([]byte("good"))
	bad  = sha256.Sum256([]byte("bad"))
)

// compiled reads rules as a site writes them.
func compiled(t *testing.T, text string) *Set {
	t.Helper()
	file := filepath.Join(t.TempDir(), "broker.toml")
	text = strings.NewReplacer("GOOD", hex.EncodeToString(good[:]), "BAD", strings.ToUpper(hex.EncodeToString(bad[:]))).Replace(text)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.LoadBroker(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestJudge(t *testing.T) {
	alice := Subject{UID: 1000, User: "alice", Groups: []string{"chem", "users"}, Account: "proj", Checked: true, Digest: good[:], Images: []string{"python:3", "sha256:12"}}
	with := func(change func(*Subject)) Subject { q := alice; change(&q); return q }
	tests := map[string]struct {
		rules string
		who   Subject
		rule  string // that denies; "" for none
	}{
		"no rules":                    {"", alice, ""},
		"user denied":                 {"[[deny]]\nname = 'no-alice'\nusers = ['bob', 'alice']\n", alice, "no-alice"},
		"another user denied":         {"[[deny]]\nname = 'no-bob'\nusers = ['bob']\n", alice, ""},
		"group denied":                {"[[deny]]\nname = 'g'\ngroups = ['users']\n", alice, "g"},
		"account denied":              {"[[deny]]\nname = 'a'\naccounts = ['proj']\n", alice, "a"},
		"claimed account denied":      {"[[deny]]\nname = 'a'\naccounts = ['proj']\n", with(func(q *Subject) { q.Checked = false }), "a"},
		"digest denied":               {"[[deny]]\nname = 'd'\ndigests = ['BAD']\n", with(func(q *Subject) { q.Digest = bad[:] }), "d"},
		"another digest denied":       {"[[deny]]\nname = 'd'\ndigests = ['BAD']\n", alice, ""},
		"image denied":                {"[[deny]]\nname = 'i'\nimages = ['sha256:12']\n", alice, "i"},
		"no image":                    {"[[deny]]\nname = 'i'\nimages = ['sha256:12']\n", with(func(q *Subject) { q.Images = nil }), ""},
		"all parts must match":        {"[[deny]]\nname = 'x'\nusers = ['alice']\ngroups = ['physics']\n", alice, ""},
		"on the list":                 {"[[allow]]\nname = 'x'\nusers = ['alice']\ndigests = ['GOOD']\n", alice, ""},
		"on one of two lists":         {"[[allow]]\nname = 'x'\nusers = ['bob']\n[[allow]]\nname = 'y'\ngroups = ['chem']\n", alice, ""},
		"not on the list":             {"[[allow]]\nname = 'x'\nusers = ['bob']\n", alice, AllowList},
		"a library not on the list":   {"[[allow]]\nname = 'x'\ndigests = ['GOOD']\n", with(func(q *Subject) { q.Digest = bad[:] }), AllowList},
		"account allowed":             {"[[allow]]\nname = 'x'\naccounts = ['proj']\n", alice, ""},
		"claimed account not allowed": {"[[allow]]\nname = 'x'\naccounts = ['proj']\n", with(func(q *Subject) { q.Checked = false }), AllowList},
		"deny wins over allow":        {"[[allow]]\nname = 'x'\n[[deny]]\nname = 'y'\nusers = ['alice']\n", alice, "y"},
		"places do not deny":          {"[[deny]]\nname = 'x'\nnodes = 'n1'\n", alice, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			no := compiled(t, test.rules).Judge(test.who)
			switch {
			case test.rule == "" && no != nil:
				t.Errorf("denied by %s: %s", no.Rule, no.Why)
			case test.rule != "" && (no == nil || no.Rule != test.rule):
				t.Errorf("got %+v, want rule %s", no, test.rule)
			case no != nil && no.Rule != AllowList && !strings.Contains(no.Why, "rule "+no.Rule):
				t.Errorf("%q does not name the rule", no.Why)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	const rules = `
[[allow]]
name = "chem"
groups = ["chem"]
partitions = ["main"]
nodes = "n[1-2]"
[[allow]]
name = "physics"
groups = ["physics"]
[[deny]]
name = "login"
nodes = "n2"
`
	set := compiled(t, rules)
	for name, test := range map[string]struct {
		groups []string
		want   string // nodes left of n1, n2, n3 in main and n1x in debug
	}{
		"chem": {[]string{"chem"}, "n1"}, "physics": {[]string{"physics"}, "n1 n3 n1x"}, "both": {[]string{"chem", "physics"}, "n1 n3 n1x"},
	} {
		where := set.Where(Subject{Groups: test.groups})
		var left []string
		for _, node := range []struct{ name, partition string }{{"n1", "main"}, {"n2", "main"}, {"n3", "main"}, {"n1x", "debug"}} {
			if why := where.Bars(node.name, []string{node.partition}); why == "" {
				left = append(left, node.name)
			} else if !strings.Contains(why, "rule login") && !strings.Contains(why, "rule chem") {
				t.Errorf("%s: %s: %q names no rule", name, node.name, why)
			}
		}
		if got := strings.Join(left, " "); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	if where := set.Where(Subject{Groups: []string{"physics"}}); where.Bars("n1", nil) != "" {
		t.Error("an allow without places allows everywhere")
	}
	if compiled(t, "[[deny]]\nname='x'\nusers=['bob']\n").Where(Subject{User: "alice"}) != nil {
		t.Error("rules about nobody's places restrict some")
	}
}

func TestExceeded(t *testing.T) {
	const rules = `
[[limit]]
name = "each"
per = "user"
executors = 4
memory = "1G"
[[limit]]
name = "project"
per = "account"
accounts = ["proj"]
cores = 6
`
	set := compiled(t, rules)
	lease := func(user, account string, executors, cores int, memory uint64) Held {
		return Held{Subject{UID: uint32(user[0]), User: user, Account: account}, Amount{executors, cores, memory << 20}}
	}
	living := []Held{lease("alice", "proj", 2, 2, 512), lease("bo", "proj", 2, 3, 100), lease("bo", "other", 1, 50, 1)}
	for name, test := range map[string]struct {
		ask  Held
		rule string
		why  string
	}{
		"room":                   {lease("alice", "", 2, 2, 512), "", ""},
		"one executor too many":  {lease("alice", "", 3, 3, 3), "each", "4 executors at a time; 2 are leased and 3 more asked for"},
		"too much memory":        {lease("alice", "", 1, 1, 513), "each", "1G of memory at a time; 512M is leased and 513M more asked for"},
		"account has room":       {lease("carol", "proj", 1, 1, 1), "", ""},
		"account is full":        {lease("carol", "proj", 1, 2, 1), "project", "account proj to 6 cores at a time; 5 are leased"},
		"others' accounts":       {lease("carol", "other", 1, 60, 1), "", ""},
		"too much all at once":   {lease("dave", "", 5, 5, 5), "each", "0 are leased and 5 more"},
		"another user's are his": {lease("carol", "", 4, 4, 4), "", ""},
	} {
		no := set.Exceeded(test.ask, living)
		if test.rule == "" && no != nil || test.rule != "" && (no == nil || no.Rule != test.rule || !strings.Contains(no.Why, test.why)) {
			t.Errorf("%s: got %+v, want rule %q …%s…", name, no, test.rule, test.why)
		}
	}
}

func TestNoRules(t *testing.T) {
	var s *Set
	if s.Judge(Subject{}) != nil || s.Where(Subject{}) != nil || s.Exceeded(Held{}, nil) != nil || s.WantsGroups() {
		t.Error("no rules restrict something")
	}
	if s.Where(Subject{}).Bars("n1", nil) != "" {
		t.Error("anywhere is barred")
	}
}

func TestCompileNamesTheRule(t *testing.T) {
	_, err := Compile(&config.Broker{Deny: []config.Rule{{Name: "x", Nodes: "n[1-"}}})
	if err == nil || !strings.Contains(err.Error(), "rule x: nodes") {
		t.Errorf("got %v", err)
	}
}
