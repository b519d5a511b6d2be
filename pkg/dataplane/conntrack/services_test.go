package conntrack

import (
	"net/netip"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func udp(family dataplane.Family, frontends []dataplane.Frontend, serving ...string) *dataplane.Port {
	p := &dataplane.Port{Name: dataplane.PortName{Service: "default/dns", Protocol: dataplane.UDP}, Family: family, Frontends: frontends}
	for _, s := range serving {
		p.Serving = append(p.Serving, at(s))
	}
	return p
}

func clusterIP(s string) []dataplane.Frontend {
	return []dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: at(s).Addr(), Port: at(s).Port()}}
}

func TestStale(t *testing.T) {
	s := New()
	s.Serve(udp(dataplane.IPv4, append(clusterIP("10.96.0.10:53"), dataplane.Frontend{Kind: dataplane.NodePort, Port: 30053}), "10.1.0.1:53", "10.1.0.2:5353"))
	s.Serve(udp(dataplane.IPv6, clusterIP("[fd00::10]:53"), "[fd01::1]:53"))
	s.Gone(udp(dataplane.IPv4, clusterIP("10.96.0.11:53")))
	s.Gone(udp(dataplane.IPv4, clusterIP("10.96.0.12:53")))
	s.Serve(udp(dataplane.IPv4, clusterIP("10.96.0.12:53"), "10.1.0.3:53"))
	tcp := udp(dataplane.IPv4, clusterIP("10.96.0.13:53"))
	tcp.Name.Protocol = dataplane.TCP
	s.Gone(tcp)
	open := func(a netip.Addr) bool { return a == at("192.0.2.1:0").Addr() }

	for name, c := range map[string]struct {
		dst, server string
		stale       bool
	}{
		"to a serving endpoint":                  {"10.96.0.10:53", "10.1.0.1:53", false},
		"to another, at its own port":            {"10.96.0.10:53", "10.1.0.2:5353", false},
		"to the right address at the wrong port": {"10.96.0.10:53", "10.1.0.2:53", true},
		"to an endpoint that left":               {"10.96.0.10:53", "10.1.0.9:53", true},
		"not translated":                         {"10.96.0.10:53", "10.96.0.10:53", true},
		"another port of the address":            {"10.96.0.10:54", "10.1.0.9:53", false},
		"IPv6, serving":                          {"[fd00::10]:53", "[fd01::1]:53", false},
		"IPv6, left":                             {"[fd00::10]:53", "[fd01::2]:53", true},
		"the Service is gone":                    {"10.96.0.11:53", "10.1.0.1:53", true},
		"another Service has the address":        {"10.96.0.12:53", "10.1.0.3:53", false},
		"node port, serving":                     {"192.0.2.1:30053", "10.1.0.1:53", false},
		"node port, left":                        {"192.0.2.1:30053", "10.1.0.9:53", true},
		"node port, not translated":              {"192.0.2.1:30053", "192.0.2.1:30053", true},
		"the node port's number elsewhere":       {"203.0.113.5:30053", "203.0.113.5:30053", false},
		"the node port in the other family":      {"[2001:db8::1]:30053", "[2001:db8::1]:30053", false},
		"the address of a TCP port":              {"10.96.0.13:53", "10.1.0.9:53", false},
		"somebody else's":                        {"203.0.113.5:53", "203.0.113.5:53", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := s.Stale(Entry{Dst: at(c.dst), Server: at(c.server)}, open); got != c.stale {
				t.Errorf("stale: %t", got)
			}
		})
	}
}
