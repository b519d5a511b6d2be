package bgp

import (
	"slices"
	"strings"
	"testing"
)

func TestParseCommunity(t *testing.T) {
	for text, want := range map[string]Community{
		"65000:100":                              {A: 65000, B: 100},
		"0:0":                                    {},
		"65535:65535":                            {A: 65535, B: 65535},
		"00065000:007":                           {A: 65000, B: 7},
		"large:65000:1:2":                        {Large: true, A: 65000, B: 1, C: 2},
		"large:0:0:0":                            {Large: true},
		"large:4294967295:4294967295:4294967295": {Large: true, A: 4294967295, B: 4294967295, C: 4294967295},
		"no-export":                              {A: 0xffff, B: 0xff01},
		"no-advertise":                           {A: 0xffff, B: 0xff02},
		"no-export-subconfed":                    {A: 0xffff, B: 0xff03},
		"local-as":                               {A: 0xffff, B: 0xff03},
		"no-peer":                                {A: 0xffff, B: 0xff04},
		"graceful-shutdown":                      {A: 0xffff, B: 0},
		"accept-own":                             {A: 0xffff, B: 1},
		"llgr-stale":                             {A: 0xffff, B: 6},
		"no-llgr":                                {A: 0xffff, B: 7},
		"blackhole":                              {A: 0xffff, B: 0x029a},
	} {
		if got, err := ParseCommunity(text); err != nil || got != want {
			t.Errorf("ParseCommunity(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseCommunityErrors(t *testing.T) {
	for text, mend := range map[string]string{
		"":                       "write it as 65000:100",
		"no-exprot":              "use one of accept-own, ",
		"NO_EXPORT":              "no-export",
		"65000":                  "write it as 65000:100",
		"65000:":                 "write it as 65000:100",
		":1":                     "write it as 65000:100",
		" 65000:1":               "write it as 65000:100",
		"65000:-1":               "write it as 65000:100",
		"+65000:1":               "write it as 65000:100",
		"6_5:1":                  "write it as 65000:100",
		"99999999:1":             "large:99999999:1:0",
		"99999999999999999999:1": "above 65535",
		"65000:65536":            "above 65535",
		"65000:1:2":              "write large:65000:1:2",
		"65000:1:2:3":            "write it as 65000:100",
		"lar:65000:1:2":          "write it as 65000:100 or large:65000:1:2",
		"rt:65000:1":             "write it as 65000:100",
		"large:65000:1":          "three numbers after large:",
		"large:65000:1:2:3":      "three numbers after large:",
		"large:":                 "three numbers after large:",
		"large:65000:1:":         "write it as large:65000:1:2",
		"large:65000:x:2":        `"x" in community`,
		"large:4294967296:1:2":   "above 4294967295",
	} {
		got, err := ParseCommunity(text)
		if err == nil {
			t.Errorf("ParseCommunity(%q) = %v, want an error", text, got)
		} else if !strings.Contains(err.Error(), mend) {
			t.Errorf("ParseCommunity(%q): %v; does not say %q", text, err, mend)
		}
	}
}

func TestCommunityString(t *testing.T) {
	for c, want := range map[Community]string{
		{A: 65000, B: 1}:                    "65000:1",
		{A: 65535, B: 65283}:                "no-export-subconfed",
		{A: 65535, B: 0}:                    "graceful-shutdown",
		{Large: true, A: 65535}:             "large:65535:0:0",
		{Large: true, A: 65000, B: 1, C: 2}: "large:65000:1:2",
	} {
		if got := c.String(); got != want {
			t.Errorf("%#v is written %q, want %q", c, got, want)
		}
	}
}

func TestCompareCommunities(t *testing.T) {
	sorted := []Community{{}, {B: 1}, {A: 1}, {A: 1, B: 2}, {A: 65535}, {Large: true}, {Large: true, C: 1}, {Large: true, B: 1}, {Large: true, A: 1}}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := a.Compare(b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%v.Compare(%v) = %d", a, b, got)
			}
		}
	}
	shuffled := slices.Clone(sorted)
	slices.Reverse(shuffled)
	slices.SortFunc(shuffled, Community.Compare)
	if !slices.Equal(shuffled, sorted) {
		t.Errorf("sorted: %v, want %v", shuffled, sorted)
	}
}

func FuzzParseCommunity(f *testing.F) {
	for _, seed := range []string{"65000:100", "large:65000:1:2", "no-export", "65000:1:2", "99999999:1", "large:", ":", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCommunity(text)
		if err != nil {
			if c != (Community{}) {
				t.Fatalf("ParseCommunity(%q) = %v and %v", text, c, err)
			}
			return
		}
		if again, err := ParseCommunity(c.String()); err != nil || again != c {
			t.Fatalf("%q is read as %+v, written %q, and then read as %+v, %v", text, c, c, again, err)
		}
		if !c.Large && (c.A > 65535 || c.B > 65535 || c.C != 0) {
			t.Fatalf("ParseCommunity(%q) = %+v, which is not a standard community", text, c)
		}
	})
}
