package bgp

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Community is a standard (RFC 1997) or large (RFC 8092) community. Of a standard one, A and B are the two halves and C is 0.
type Community struct {
	Large   bool
	A, B, C uint32
}

// wellKnown are the names that need no Community object. local-as is what routers call no-export-subconfed.
var wellKnown = []struct {
	name  string
	value Community
}{
	{"graceful-shutdown", GracefulShutdown},
	{"accept-own", Community{A: 65535, B: 1}},              // RFC 7611
	{"llgr-stale", Community{A: 65535, B: 6}},              // RFC 9494
	{"no-llgr", Community{A: 65535, B: 7}},                 // RFC 9494
	{"blackhole", Community{A: 65535, B: 666}},             // RFC 7999
	{"no-export", Community{A: 65535, B: 65281}},           // RFC 1997
	{"no-advertise", Community{A: 65535, B: 65282}},        // RFC 1997
	{"no-export-subconfed", Community{A: 65535, B: 65283}}, // RFC 1997
	{"local-as", Community{A: 65535, B: 65283}},
	{"no-peer", Community{A: 65535, B: 65284}}, // RFC 3765
}

// GracefulShutdown asks a peer to prefer any other path, because this one is about to go (RFC 8326).
var GracefulShutdown = Community{A: 65535, B: 0}

// ParseCommunity reads 65000:100, large:65000:1:2, or a well-known name such as no-export. Its errors say how to write it.
func ParseCommunity(text string) (Community, error) {
	for _, w := range wellKnown {
		if w.name == text {
			return w.value, nil
		}
	}
	values, large := strings.CutPrefix(text, "large:")
	parts := strings.Split(values, ":")
	switch {
	case large && len(parts) == 3:
		return parseLarge(text, parts)
	case large:
		return Community{}, fmt.Errorf("%q is not a large community: write three numbers after large:, such as large:65000:1:2", text)
	case len(parts) == 2:
		return parseStandard(text, parts)
	case len(parts) == 3 && !slices.ContainsFunc(parts, notNumber):
		return Community{}, fmt.Errorf("%q has three numbers: if it is to be a large community, write large:%s", text, text)
	}
	return Community{}, fmt.Errorf("%q is neither a community nor a well-known name: write it as 65000:100 or large:65000:1:2, or use one of %s",
		text, strings.Join(WellKnownNames(), ", "))
}

// WellKnownNames returns the names that ParseCommunity understands, sorted.
func WellKnownNames() []string {
	var names []string
	for _, w := range wellKnown {
		names = append(names, w.name)
	}
	slices.Sort(names)
	return names
}

func parseStandard(text string, parts []string) (Community, error) {
	var values [2]uint32
	for i, part := range parts {
		if notNumber(part) {
			return Community{}, fmt.Errorf("%q in community %q is not a number: write it as 65000:100", part, text)
		}
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil || n > math.MaxUint16 {
			return Community{}, fmt.Errorf("%s in community %q is above 65535: numbers up to 4294967295 fit into a large community, such as large:%s:0", part, text, text)
		}
		values[i] = uint32(n)
	}
	return Community{A: values[0], B: values[1]}, nil
}

func parseLarge(text string, parts []string) (Community, error) {
	var values [3]uint32
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		switch {
		case notNumber(part):
			return Community{}, fmt.Errorf("%q in community %q is not a number: write it as large:65000:1:2", part, text)
		case err != nil:
			return Community{}, fmt.Errorf("%s in community %q is above 4294967295", part, text)
		}
		values[i] = uint32(n)
	}
	return Community{Large: true, A: values[0], B: values[1], C: values[2]}, nil
}

// notNumber says that text has something else than digits, or none.
func notNumber(text string) bool {
	return text == "" || strings.Trim(text, "0123456789") != ""
}

// String returns what ParseCommunity reads: a well-known name where there is one.
func (c Community) String() string {
	for _, w := range wellKnown {
		if w.value == c {
			return w.name
		}
	}
	if c.Large {
		return fmt.Sprintf("large:%d:%d:%d", c.A, c.B, c.C)
	}
	return fmt.Sprintf("%d:%d", c.A, c.B)
}

// Compare orders standard communities before large ones, and each by their numbers, as they stand in a path attribute.
func (c Community) Compare(other Community) int {
	if c.Large != other.Large {
		if c.Large {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(c.A, other.A), cmp.Compare(c.B, other.B), cmp.Compare(c.C, other.C))
}
