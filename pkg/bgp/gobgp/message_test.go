package gobgp

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// openMessage is a router's OPEN message with these capabilities.
func openMessage(t testing.TB, asn uint32, hold uint16, capabilities ...packet.ParameterCapabilityInterface) []byte {
	t.Helper()
	short := uint16(asn)
	if asn > 65535 {
		short = packet.AS_TRANS
	}
	m, err := packet.NewBGPOpenMessage(short, hold, netip.MustParseAddr("192.0.2.1"), []packet.OptionParameterInterface{packet.NewOptionParameterCapability(capabilities)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadOpen(t *testing.T) {
	both := []packet.ParameterCapabilityInterface{packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapMultiProtocol(packet.RF_IPv6_UC)}
	for _, c := range []struct {
		name string
		m    []byte
		want open
	}{
		{"old", openMessage(t, 64512, 90), open{asn: 64512, v4: true}},
		{"both families", openMessage(t, 64512, 90, both...), open{asn: 64512, v4: true, v6: true}},
		{"IPv6 only", openMessage(t, 64512, 90, both[1]), open{asn: 64512, v6: true}},
		{"large ASN", openMessage(t, 4200000001, 90, packet.NewCapFourOctetASNumber(4200000001)), open{asn: 4200000001, v4: true}},
		{"IPv6 next hops", openMessage(t, 1, 90, packet.NewCapExtendedNexthop([]*packet.CapExtendedNexthopTuple{
			packet.NewCapExtendedNexthopTuple(packet.RF_IPv6_UC, packet.AFI_IP6), packet.NewCapExtendedNexthopTuple(packet.RF_IPv4_UC, packet.AFI_IP6),
		})), open{asn: 1, v4: true, extended: true}},
		{"cut off", openMessage(t, 64512, 90, both...)[:headerLength+5], open{}},
		{"extended parameters", extended(openMessage(t, 64512, 90, both...)), open{asn: 64512, v4: true, v6: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := readOpen(c.m); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// extended writes the length of an OPEN message's parameters as RFC 9072 says.
func extended(m []byte) []byte {
	parameters := m[openParameters+1:]
	out := append(bytes.Clone(m[:openParameters]), 255, 255, 0, byte(len(parameters)+1), parameters[0], 0)
	return append(out, parameters[1:]...)
}

func TestAmendOpen(t *testing.T) {
	m := openMessage(t, 65001, 90, packet.NewCapRouteRefresh(), packet.NewCapGracefulRestart(false, false, 120, []*packet.CapGracefulRestartTuple{
		packet.NewCapGracefulRestartTuple(packet.RF_IPv4_UC, false), packet.NewCapGracefulRestartTuple(packet.RF_IPv6_UC, false),
	}))
	amendOpen(m, netip.MustParseAddr("198.51.100.7"), true)
	parsed, err := packet.ParseBGPMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	o := parsed.Body.(*packet.BGPOpen)
	if o.ID != netip.MustParseAddr("198.51.100.7") || o.HoldTime != 0 || o.MyAS != 65001 {
		t.Errorf("the message: %+v", o)
	}
	restart := o.OptParams[0].(*packet.OptionParameterCapability).Capability[1].(*packet.CapGracefulRestart)
	if restart.Flags != 0x08 || restart.Time != 120 || len(restart.Tuples) != 2 || restart.Tuples[0].Flags != 0x80 || restart.Tuples[1].Flags != 0x80 {
		t.Errorf("graceful restart: %+v", restart)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(openMessage(f, 64512, 90, packet.NewCapRouteRefresh(), packet.NewCapFourOctetASNumber(7)))
	f.Add(extended(openMessage(f, 64512, 90, packet.NewCapRouteRefresh())))
	f.Fuzz(func(t *testing.T, m []byte) {
		readOpen(m)
		before := len(m)
		amendOpen(m, netip.MustParseAddr("192.0.2.1"), true)
		if len(m) != before {
			t.Error("the length is another")
		}
	})
}

func TestDescribe(t *testing.T) {
	for want, m := range map[string][]byte{
		"NOTIFICATION 2/2 (bad peer AS)":                            notification(2, 2),
		"NOTIFICATION 4/0 (hold timer expired)":                     notification(4, 0),
		"NOTIFICATION 6/3 (peer deconfigured)":                      cease(ceaseDeconfigured, ""),
		`NOTIFICATION 6/2 (administrative shutdown): "maintenance"`: cease(ceaseShutdown, "maintenance"),
		`NOTIFICATION 6/4 (administrative reset)`:                   notification(6, 4, 200, 'x'), // says 200 bytes, has one
		"NOTIFICATION 6/99 (cease)":                                 notification(6, 99),
		"NOTIFICATION 77/1":                                         notification(77, 1),
		"NOTIFICATION without a code":                               newMessage(packet.BGP_MSG_NOTIFICATION),
		`NOTIFICATION 6/4 (administrative reset): "a\n?"`:           notification(6, 4, 3, 'a', '\n', 0xff),
		`NOTIFICATION 1/2 (bad message length)`:                     notification(1, 2, 0, 3),
	} {
		if got := describe(m); got != want {
			t.Errorf("%x: %s, want %s", m, got, want)
		}
	}
	if m := cease(ceaseReset, strings.Repeat("ä", 300)); len(m) > headerLength+2+1+maxCommunication {
		t.Errorf("a text of %d bytes", len(m))
	}
}

// reach makes an UPDATE with IPv4 prefixes and an IPv6 next hop, as GoBGP does.
func reach(t testing.TB, hop string, med uint32, prefixes ...string) []byte {
	t.Helper()
	var list []packet.PathNLRI
	for _, p := range prefixes {
		nlri, err := packet.NewIPAddrPrefix(netip.MustParsePrefix(p))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, packet.PathNLRI{NLRI: nlri})
	}
	mp, err := packet.NewPathAttributeMpReachNLRI(packet.RF_IPv4_UC, list, netip.MustParseAddr(hop))
	if err != nil {
		t.Fatal(err)
	}
	b, err := packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{packet.NewPathAttributeOrigin(0), mp, packet.NewPathAttributeMultiExitDisc(med)}, nil).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMerge(t *testing.T) {
	u, ok := split(reach(t, "fe80::1", 1, "10.0.0.1/32"))
	if !ok {
		t.Fatal("not taken apart")
	}
	if u.merge(reach(t, "fe80::2", 1, "10.0.0.2/32")) || u.merge(reach(t, "fe80::1", 2, "10.0.0.2/32")) {
		t.Error("merged with another next hop or other attributes")
	}
	if !u.merge(reach(t, "fe80::1", 1, "10.0.0.2/32")) {
		t.Error("not merged")
	}
	if want := reach(t, "fe80::1", 1, "10.0.0.1/32", "10.0.0.2/32"); !sameUpdate(t, u.message(), want) {
		t.Errorf("got %x, want %x", u.message(), want)
	}
	for n := 0; u.merge(reach(t, "fe80::1", 1, "10.0.0.3/32")); n++ {
		if n > maxMessage {
			t.Fatal("no end")
		}
	}
	if n := len(u.message()); n > maxMessage || n < maxMessage-100 {
		t.Errorf("a full message has %d bytes", n)
	}
	if _, err := packet.ParseBGPMessage(u.message()); err != nil {
		t.Error(err)
	}
}

func update4(t testing.TB, med uint32, withdrawn, prefixes []string) []byte {
	t.Helper()
	nlri := func(texts []string) (list []packet.PathNLRI) {
		for _, p := range texts {
			n, err := packet.NewIPAddrPrefix(netip.MustParsePrefix(p))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, packet.PathNLRI{NLRI: n})
		}
		return list
	}
	var attributes []packet.PathAttributeInterface
	if prefixes != nil {
		attributes = append(attributes, packet.NewPathAttributeOrigin(0), packet.NewPathAttributeMultiExitDisc(med))
	}
	b, err := packet.NewBGPUpdateMessage(nlri(withdrawn), attributes, nlri(prefixes)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unreach(t testing.TB, prefixes ...string) []byte {
	t.Helper()
	var list []packet.PathNLRI
	for _, p := range prefixes {
		n, err := packet.NewIPAddrPrefix(netip.MustParsePrefix(p))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, packet.PathNLRI{NLRI: n})
	}
	mp, err := packet.NewPathAttributeMpUnreachNLRI(packet.RF_IPv6_UC, list)
	if err != nil {
		t.Fatal(err)
	}
	b, err := packet.NewBGPUpdateMessage(nil, []packet.PathAttributeInterface{mp}, nil).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMergeKinds(t *testing.T) {
	end4, err := packet.NewEndOfRib(packet.RF_IPv4_UC).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	end6, err := packet.NewEndOfRib(packet.RF_IPv6_UC).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	one, two := []string{"10.0.0.1/32"}, []string{"10.0.0.2/32"}
	both := append(one, two...)
	for _, c := range []struct {
		name       string
		a, b, want []byte // nil: they can't be merged
	}{
		{"announced", update4(t, 1, nil, one), update4(t, 1, nil, two), update4(t, 1, nil, both)},
		{"withdrawn", update4(t, 1, one, nil), update4(t, 1, two, nil), update4(t, 1, both, nil)},
		{"other attributes", update4(t, 1, nil, one), update4(t, 2, nil, two), nil},
		{"withdrawn, then announced", update4(t, 1, one, nil), update4(t, 1, nil, two), nil},
		{"announced, then withdrawn", update4(t, 1, nil, one), update4(t, 1, two, nil), nil},
		{"IPv6 withdrawn", unreach(t, "2001:db8::1/128"), unreach(t, "2001:db8::2/128"), unreach(t, "2001:db8::1/128", "2001:db8::2/128")},
		{"IPv6 withdrawn, then the end", unreach(t, "2001:db8::1/128"), end6, nil},
		{"withdrawn, then the end", update4(t, 1, one, nil), end4, nil},
		{"the end twice", end4, end4, nil},
		{"the end of IPv6 twice", end6, end6, nil},
		{"no UPDATE", newMessage(packet.BGP_MSG_KEEPALIVE), update4(t, 1, nil, one), nil},
		{"a KEEPALIVE after", update4(t, 1, nil, one), newMessage(packet.BGP_MSG_KEEPALIVE), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, ok := split(c.a)
			ok = ok && u.merge(c.b)
			if ok != (c.want != nil) {
				t.Fatalf("merged: %v", ok)
			}
			if ok && !sameUpdate(t, u.message(), c.want) {
				t.Errorf("got %x, want %x", u.message(), c.want)
			}
		})
	}
}

// sameUpdate says whether two UPDATEs say the same, however they write lengths.
func sameUpdate(t *testing.T, a, b []byte) bool {
	t.Helper()
	var texts []string
	for _, m := range [][]byte{a, b} {
		parsed, err := packet.ParseBGPMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		u := parsed.Body.(*packet.BGPUpdate)
		text := fmt.Sprint(u.WithdrawnRoutes, u.NLRI)
		for _, attribute := range u.PathAttributes {
			text += attribute.String()
		}
		texts = append(texts, text)
	}
	return texts[0] == texts[1]
}

func FuzzMerge(f *testing.F) {
	f.Add(reach(f, "fe80::1", 1, "10.0.0.1/32"), reach(f, "fe80::1", 1, "10.0.0.2/32"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a) < headerLength || len(b) < headerLength {
			return
		}
		u, ok := split(a)
		if !ok {
			return
		}
		before := len(u.prefixes)
		if u.merge(b) && len(u.prefixes) < before {
			t.Error("prefixes were lost")
		}
		if m := u.message(); len(m) > max(maxMessage, len(a)+1) {
			t.Errorf("a message of %d bytes", len(m))
		}
	})
}
