package hostlist_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gleaner-hpc/gleaner/slurmplugin/hostlist"
)

func TestExpand(t *testing.T) {
	for name, test := range map[string]struct {
		list string
		want []string
	}{
		"none":            {"", nil},
		"one":             {"login", []string{"login"}},
		"range":           {"n[01-03,7]", []string{"n01", "n02", "n03", "n7"}},
		"width grows":     {"n[8-11]", []string{"n8", "n9", "n10", "n11"}},
		"suffix":          {"n[1-2]-ib", []string{"n1-ib", "n2-ib"}},
		"two brackets":    {"r[1-2]n[1-2]", []string{"r1n1", "r1n2", "r2n1", "r2n2"}},
		"several words":   {"a1,b[2-3],c", []string{"a1", "b2", "b3", "c"}},
		"comma in braces": {"a[1,3],b", []string{"a1", "a3", "b"}},
		"order is kept":   {"b[2,1],a", []string{"b2", "b1", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := hostlist.Expand(test.list)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, list := range []string{
		"n[", "n]", "n[1", "n[]", "n[a]", "n[3-1]", "n[1-2-3]", "n[1,]", ",a", "a,", "a,,b", "a b", "n[[1]]", "n[-1]",
		"n[1-999999999999]", "n[1-1000]x[1-1000]", "n[1-9999999999999999999999]", "a\nb",
	} {
		if names, err := hostlist.Expand(list); !errors.Is(err, hostlist.ErrSyntax) {
			t.Errorf("Expand(%q) = %d names, %v", list, len(names), err)
		}
	}
	for _, list := range []string{"1-", "x", "3-1", "0-999999", "1,,2", "-1"} {
		if _, err := hostlist.Numbers(list); !errors.Is(err, hostlist.ErrSyntax) {
			t.Errorf("Numbers(%q): %v", list, err)
		}
	}
	for _, list := range []string{"8(x", "8(x0)", "8(x2", "(x2)", "8()", "8(x999999)", "a", "8(y2)"} {
		if _, err := hostlist.Counts(list); !errors.Is(err, hostlist.ErrSyntax) {
			t.Errorf("Counts(%q): %v", list, err)
		}
	}
}

func TestCompress(t *testing.T) {
	for want, names := range map[string][]string{
		"":                nil,
		"login":           {"login", "login"},
		"n7,n[01-03]":     {"n03", "n01", "n02", "n7"},
		"n[8-11]":         {"n8", "n9", "n10", "n11"},
		"a[1,3-4],b":      {"b", "a4", "a3", "a1"},
		"n1-ib,r1n[1-2]":  {"n1-ib", "r1n2", "r1n1"},
		"n[0-1],n[00-01]": {"n0", "n1", "n00", "n01"},
	} {
		if got := hostlist.Compress(names); !same(t, got, want) {
			t.Errorf("Compress(%v) = %q, want %q", names, got, want)
		}
	}
}

// same compares lists by what they expand to, and lets words stand in any order.
func same(t *testing.T, a, b string) bool {
	t.Helper()
	return cmp.Equal(expandSorted(t, a), expandSorted(t, b)) && strings.Count(a, ",") == strings.Count(b, ",")
}

func expandSorted(t interface{ Fatal(...any) }, list string) []string {
	names, err := hostlist.Expand(list)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestNumbersAndCounts(t *testing.T) {
	numbers, err := hostlist.Numbers("5,0-2,1")
	if err != nil || !slices.Equal(numbers, []int{0, 1, 2, 5}) {
		t.Errorf("Numbers: %v, %v", numbers, err)
	}
	if got := hostlist.FormatNumbers([]int{5, 2, 1, 0, 0}); got != "0-2,5" {
		t.Errorf("FormatNumbers: %q", got)
	}
	counts, err := hostlist.Counts("8(x2),4")
	if err != nil || !slices.Equal(counts, []int{8, 8, 4}) {
		t.Errorf("Counts: %v, %v", counts, err)
	}
}

// What is compressed expands to the same set of names.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c]{0,2}[a-c][0-9]{0,3}(-[a-b][0-9]{0,2})?`)
		names := rapid.SliceOfN(name, 0, 40).Draw(t, "names")
		want := slices.Clone(names)
		slices.Sort(want)
		if got := expandSorted(t, hostlist.Compress(names)); !slices.Equal(got, slices.Compact(want)) {
			t.Fatalf("%v became %q", names, hostlist.Compress(names))
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, list := range []string{"n[01-03,7]", "r[1-2]n[1-4]-ib,login", "a,b", "n[", "8(x2),4", "0-2,5"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if names, err := hostlist.Expand(list); err == nil {
			if len(names) > hostlist.Max {
				t.Fatalf("%d names", len(names))
			}
			again, err := hostlist.Expand(hostlist.Compress(names))
			if err != nil {
				t.Fatalf("%q compressed to %q: %v", list, hostlist.Compress(names), err)
			}
			slices.Sort(names)
			slices.Sort(again)
			if !slices.Equal(slices.Compact(names), again) {
				t.Fatalf("%q: %v became %v", list, names, again)
			}
		}
		if numbers, err := hostlist.Numbers(list); err == nil {
			again, err := hostlist.Numbers(hostlist.FormatNumbers(numbers))
			if err != nil || !slices.Equal(numbers, again) {
				t.Fatalf("%q: %v became %v: %v", list, numbers, again, err)
			}
		}
		_, _ = hostlist.Counts(list)
	})
}
