package layer2

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

// passes runs the program as the kernel would.
func passes(t *testing.T, program []bpf.Instruction, frame []byte) bool {
	t.Helper()
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestSpan(t *testing.T) {
	var s span
	for _, a := range []string{"192.0.2.20", "192.0.2.10", "192.0.2.15", "192.0.2.30"} {
		s = s.with(netip.MustParseAddr(a))
	}
	if want := (span{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.30")}); s != want {
		t.Errorf("span %v, want %v", s, want)
	}
}

func TestARPFilter(t *testing.T) {
	none := span{}
	at := func(from, to string) span { return span{netip.MustParseAddr(from), netip.MustParseAddr(to)} }
	const prefix = hexAll + hexTheirs + hexARP
	for _, c := range []struct {
		name   string
		span   span
		fields string
		want   bool
	}{
		{"nothing announced", none, prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, false},
		{"request for the address", at("192.0.2.100", "192.0.2.100"), prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, true},
		{"request for the last", at("192.0.2.90", "192.0.2.100"), prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, true},
		{"request for the first", at("192.0.2.100", "192.0.2.200"), prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, true},
		{"request below", at("192.0.2.101", "192.0.2.200"), prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, false},
		{"request above", at("192.0.2.90", "192.0.2.99"), prefix + "0001" + hexTheirs + hexClient + hexNone + hexVIP, false},
		{"reply from the address", at("192.0.2.100", "192.0.2.100"), prefix + "0002" + hexTheirs + hexVIP + hexMine + hexClient, true},
		{"reply from below", at("192.0.2.101", "192.0.2.200"), prefix + "0002" + hexTheirs + hexVIP + hexMine + hexClient, false},
		{"reply from above", at("192.0.2.90", "192.0.2.99"), prefix + "0002" + hexTheirs + hexVIP + hexMine + hexClient, false},
		{"above the sign bit", at("203.0.113.1", "223.255.255.254"), prefix + "0002" + hexTheirs + "df000001" + hexMine + hexClient, true},
		{"reverse ARP", at("192.0.2.100", "192.0.2.100"), prefix + "0003" + hexTheirs + hexClient + hexNone + hexVIP, false},
		{"another network", at("192.0.2.100", "192.0.2.100"), hexAll + hexTheirs + " 0806 0006 0800 06 04 0001" + hexTheirs + hexClient + hexNone + hexVIP, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := passes(t, arpFilter(c.span), frameOf(t, c.fields)); got != c.want {
				t.Errorf("passes = %v", got)
			}
		})
	}
}

func TestNDPFilter(t *testing.T) {
	solicit := func() []byte {
		return icmpFrame(solicitation(clientLLA), multicastMAC(group6), theirs, client6, group6)
	}
	changed := func(at int, to byte) []byte {
		frame := solicit()
		frame[at] = to
		return frame
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"solicitation", solicit(), true},
		{"advertisement", icmpFrame(&ndp.NeighborAdvertisement{TargetAddress: vip6}, mine, theirs, client6, vip6), true},
		{"router solicitation", icmpFrame(&ndp.RouterSolicitation{}, multicastMAC(allNodes), theirs, client6, allNodes), false},
		{"echo request", changed(ethernetHeader+ipv6Header, 128), false},
		{"TCP", changed(ethernetHeader+6, 6), false},
		{"through a router", changed(ethernetHeader+7, 254), false},
		{"too short", []byte(strings.Repeat("x", 20)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := passes(t, ndpFilter(), c.frame); got != c.want {
				t.Errorf("passes = %v", got)
			}
		})
	}
}
