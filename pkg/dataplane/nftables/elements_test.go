package nftables

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// FuzzSources checks that the intervals of source ranges, which the kernel wants apart from each other, hold just what the ranges do.
func FuzzSources(f *testing.F) {
	f.Add([]byte{10, 0, 8, 10, 1, 16, 10, 0, 8}, []byte{10, 1}, true)
	f.Add([]byte{0, 0, 0}, []byte{1, 2}, false)
	f.Fuzz(func(t *testing.T, b, source []byte, own bool) {
		p := numbered{&dataplane.Port{OwnSource: own}, 1}
		vip := netip.MustParseAddr("192.0.2.1")
		for ; len(b) >= 3; b = b[3:] {
			p.SourceRanges = append(p.SourceRanges, netip.PrefixFrom(netip.AddrFrom4([4]byte{b[0], b[1]}), int(b[2]%33)).Masked())
		}
		out := elements{}
		ipv4.addSources(out, "", vip, p, "")
		for s := range out {
			for o := range out {
				if s != o && s.key <= o.end && o.key <= s.end {
					t.Errorf("intervals %x-%x and %x-%x overlap", s.key, s.end, o.key, o.end)
				}
			}
		}
		if len(source) < 2 {
			return
		}
		for _, client := range []netip.Addr{vip, netip.AddrFrom4([4]byte{source[0], source[1]})} {
			want := own && client == vip || slices.ContainsFunc(p.SourceRanges, func(r netip.Prefix) bool { return r.Contains(client) })
			got := false
			for s := range out {
				got = got || s.key <= addrBytes(client) && addrBytes(client) <= s.end
			}
			if got != want {
				t.Errorf("%s is allowed: %t, want %t, by %v", client, got, want, p.SourceRanges)
			}
		}
	})
}

// FuzzAdd checks that no port, however odd, makes the renderer fail, or touches places that it does not own.
func FuzzAdd(f *testing.F) {
	f.Add(uint8(1), "10.96.0.1", uint16(80), "10.244.1.2:80", "fd00::1/64", uint8(3), int64(1000))
	f.Add(uint8(4), "::ffff:192.0.2.1", uint16(0), "[fd00::2]:0", "0.0.0.0/0", uint8(7), int64(-1))
	f.Fuzz(func(t *testing.T, kind uint8, addr string, port uint16, endpoint, source string, flags uint8, affinity int64) {
		fe := dataplane.Frontend{Kind: dataplane.Kind(kind), Port: port}
		fe.Addr, _ = netip.ParseAddr(addr)
		e := dataplane.Endpoint{Local: flags&1 != 0}
		e.Addr, _ = netip.ParseAddrPort(endpoint)
		r, _ := netip.ParsePrefix(source)
		p := &dataplane.Port{Name: dataplane.PortName{Service: strings.Repeat("long", 100), Port: addr, Protocol: dataplane.Protocol(flags)},
			Frontends: []dataplane.Frontend{fe}, Cluster: []dataplane.Endpoint{e}, SourceRanges: []netip.Prefix{r},
			InternalLocal: flags&2 != 0, ExternalLocal: flags&4 != 0, OwnSource: flags&8 != 0, Affinity: time.Duration(affinity)}
		if e.Local {
			p.Local = p.Cluster
		}
		for _, fam := range []family{ipv4, ipv6} {
			p.Family = fam.Family
			out := elements{}
			fam.add(out, numbered{p, 1}, func(c class) {
				if c.cluster+c.node == 0 {
					t.Errorf("class %+v has no endpoint to pick", c)
				}
			})
			for s, c := range out {
				if len(c.comment) > maxComment {
					t.Errorf("comment of %d bytes", len(c.comment))
				}
				if s.set == setServices && !strings.HasPrefix(s.key, addrBytes(fe.Addr.Unmap())) {
					t.Errorf("place %x is not of %s", s.key, fe.Addr)
				}
			}
		}
	})
}
