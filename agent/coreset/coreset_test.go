package coreset

import (
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		want string
		bad  bool
	}{
		"":          {want: ""},
		"0":         {want: "0"},
		"0-2,5":     {want: "0-2,5"},
		"5,0-2":     {want: "0-2,5"},
		"1,2,3,3":   {want: "1-3"},
		"63-64,128": {want: "63-64,128"},
		"65535":     {want: "65535"},
		"65536":     {bad: true},
		"2-1":       {bad: true},
		"-1":        {bad: true},
		"1-":        {bad: true},
		"1,,2":      {bad: true},
		"a":         {bad: true},
		" 1":        {bad: true},
		"+1":        {bad: true},
	}
	for list, test := range tests {
		got, err := Parse(list)
		if (err != nil) != test.bad || got.String() != test.want {
			t.Errorf("Parse(%q) = %q, %v; want %q, error %v", list, got, err, test.want, test.bad)
		}
	}
}

func TestAlgebra(t *testing.T) {
	parse := func(list string) Set {
		s, err := Parse(list)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	tests := []struct{ a, b, or, and, minus string }{
		{"0-3", "2-5", "0-5", "2-3", "0-1"},
		{"0-3", "100", "0-3,100", "", "0-3"},
		{"100", "0-3", "0-3,100", "", "100"},
		{"", "1", "1", "", ""},
		{"70-75", "70-75", "70-75", "70-75", ""},
	}
	for _, test := range tests {
		a, b := parse(test.a), parse(test.b)
		if got := []string{a.Or(b).String(), a.And(b).String(), a.Minus(b).String()}; !slices.Equal(got, []string{test.or, test.and, test.minus}) {
			t.Errorf("%q, %q: got %q", test.a, test.b, got)
		}
		if a.Overlaps(b) != (test.and != "") {
			t.Errorf("%q overlaps %q: %v", test.a, test.b, a.Overlaps(b))
		}
	}
	if got := parse("0-3,70-72").Highest(4).String(); got != "3,70-72" {
		t.Errorf("highest: %q", got)
	}
	if got := Range(2, 5).Numbers(); !slices.Equal(got, []int{2, 3, 4}) || !Range(3, 3).Empty() {
		t.Errorf("range: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "0", "0-2,5", "65535", "7-3", "1,,2", "0-65535"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		s, err := Parse(list)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil || !slices.Equal(s, again) {
			t.Errorf("%q gives %q, which gives %q, %v", list, s, again, err)
		}
		if s.Len() != len(s.Numbers()) {
			t.Errorf("%q: length %d, numbers %v", list, s.Len(), s.Numbers())
		}
	})
}
