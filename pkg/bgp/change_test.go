package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// apply makes of d what an engine does with a Change.
func apply(d Desired, c Change) Desired {
	d = Desired{RouterID: c.RouterID, ListenPort: c.ListenPort, Peers: slices.Clone(d.Peers), Routes: slices.Clone(d.Routes)}
	d.Peers = slices.DeleteFunc(d.Peers, func(p Peer) bool {
		return slices.Contains(c.GonePeers, p.Name) || slices.ContainsFunc(c.Peers, func(q Peer) bool { return q.Name == p.Name })
	})
	d.Peers = append(d.Peers, c.Peers...)
	slices.SortFunc(d.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	d.Routes = slices.DeleteFunc(d.Routes, func(r Route) bool {
		return slices.Contains(c.GoneRoutes, r.Prefix) || slices.ContainsFunc(c.Routes, func(q Route) bool { return q.Prefix == r.Prefix })
	})
	d.Routes = append(d.Routes, c.Routes...)
	slices.SortFunc(d.Routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return d
}

var (
	compareAddresses = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}
	shared           = &Attributes{LocalPref: 200, Communities: []Community{{A: 65000, B: 1}}}
)

func desireds(t *rapid.T, name string) Desired {
	d := Desired{RouterID: netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, name+" router ID")})}
	d.ListenPort = rapid.SampledFrom([]uint16{0, 179}).Draw(t, name+" port")
	for i := range 5 {
		if rapid.Bool().Draw(t, fmt.Sprintf("%s peer %d", name, i)) {
			d.Peers = append(d.Peers, Peer{Name: fmt.Sprint("peer-", i), Port: rapid.SampledFrom([]uint16{179, 1179}).Draw(t, "port"), IPv4: rapid.Bool().Draw(t, "IPv4")})
		}
	}
	attributes := rapid.SampledFrom([]*Attributes{nil, {}, shared, {LocalPref: 200, Communities: []Community{{A: 65000, B: 1}}},
		{LocalPref: 200, Communities: []Community{{A: 65000, B: 2}}}, {HasMED: true}, {Bandwidth: 1}, {Prepend: 1}})
	for i := range 8 {
		if !rapid.Bool().Draw(t, fmt.Sprintf("%s route %d", name, i)) {
			continue
		}
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)
		if i >= 4 {
			prefix = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}), 128)
		}
		r := Route{Prefix: prefix}
		for j := range rapid.IntRange(0, 2).Draw(t, "paths") {
			r.Paths = append(r.Paths, Path{Peers: []string{fmt.Sprint("peer-", 2*j), fmt.Sprint("peer-", 2*j+rapid.IntRange(0, 1).Draw(t, "peer"))}, Attributes: attributes.Draw(t, "attributes")})
		}
		d.Routes = append(d.Routes, r)
	}
	return d
}

func TestDiffApplied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := desireds(t, "old"), desireds(t, "desired")
		c := Diff(a, b)
		if diff := cmp.Diff(b, apply(a, c), compareAddresses); diff != "" {
			t.Fatalf("applying the difference gives something else (-want +got):\n%s", diff)
		}
		// Nothing that is the same may be touched.
		for _, p := range c.Peers {
			if slices.Contains(a.Peers, p) {
				t.Fatalf("peer %s is as before, but is in the difference", p.Name)
			}
		}
		for _, r := range c.Routes {
			if slices.ContainsFunc(a.Routes, func(old Route) bool { return cmp.Equal(old, r, compareAddresses) }) {
				t.Fatalf("route %s is as before, but is in the difference", r.Prefix)
			}
		}
	})
}

func TestDiffOfEqualCopies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := desireds(t, "old")
		b := Desired{RouterID: a.RouterID, ListenPort: a.ListenPort, Peers: slices.Clone(a.Peers)}
		for _, r := range a.Routes {
			copied := Route{Prefix: r.Prefix}
			for _, p := range r.Paths {
				q := Path{Peers: slices.Clone(p.Peers)}
				if p.Attributes != nil {
					attributes := *p.Attributes
					attributes.Communities = slices.Clone(attributes.Communities)
					q.Attributes = &attributes
				}
				copied.Paths = append(copied.Paths, q)
			}
			b.Routes = append(b.Routes, copied)
		}
		if diff := cmp.Diff(Change{RouterID: a.RouterID, ListenPort: a.ListenPort}, Diff(a, b), compareAddresses); diff != "" {
			t.Fatalf("copies differ (-want +got):\n%s", diff)
		}
	})
}

// tenThousand is a node with as many routes; the Paths are copies that share Attributes only.
func tenThousand() Desired {
	d := Desired{RouterID: netip.MustParseAddr("192.0.2.1")}
	for i := range 10_000 {
		d.Routes = append(d.Routes, Route{
			Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32),
			Paths:  []Path{{Peers: []string{"a", "b", "c", "d"}, Attributes: shared}},
		})
	}
	return d
}

func BenchmarkDiffUnchanged(b *testing.B) {
	old, desired := tenThousand(), tenThousand()
	for b.Loop() {
		if c := Diff(old, desired); len(c.Routes)+len(c.GoneRoutes) > 0 {
			b.Fatal("they differ")
		}
	}
}
