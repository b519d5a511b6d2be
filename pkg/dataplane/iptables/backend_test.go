package iptables

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// nginx is the Service of the golden files, with endpoints at some addresses and frontends beside its cluster IP.
func nginx(endpoints string, more ...dataplane.Frontend) *dataplane.Port {
	p := &dataplane.Port{
		Name:      dataplane.PortName{Service: "default/nginx-service", Port: "http-port", Protocol: dataplane.TCP},
		Family:    dataplane.IPv4,
		Frontends: append([]dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: netip.MustParseAddr("10.109.220.13"), Port: 80}}, more...),
	}
	for _, a := range strings.Fields(endpoints) {
		p.Cluster = append(p.Cluster, dataplane.Endpoint{Addr: netip.MustParseAddrPort(a)})
	}
	return p
}

func model(ports ...*dataplane.Port) *dataplane.Model {
	m := &dataplane.Model{
		Host:  dataplane.Host{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/56")}},
		Ports: map[string][]*dataplane.Port{},
	}
	for _, p := range ports {
		m.Ports[p.Name.Service] = append(m.Ports[p.Name.Service], p)
	}
	return m
}

// The golden files are what kube-proxy 1.27 wrote on a cluster, as published, with the last rule of KUBE-SERVICES added.
func TestKubeProxyLayout(t *testing.T) {
	for name, port := range map[string]*dataplane.Port{
		"clusterip": nginx("10.244.3.9:80 10.244.4.7:80 10.244.5.20:80"),
		"nodeport":  nginx("10.244.3.10:80 10.244.4.8:80 10.244.5.21:80", dataplane.Frontend{Kind: dataplane.NodePort, Port: 30007}),
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			sync(t, newBackend(t, dataplane.Full), model(port))
			golden, err := os.ReadFile("testdata/" + name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for line := range strings.Lines(string(golden)) {
				if ask, is := strings.CutPrefix(line, "$ "); is {
					got.WriteString(line + command(t, ask))
				}
			}
			if got.String() != string(golden) {
				t.Errorf("got\n%s\nwant\n%s", got.String(), golden)
			}
		})
	}
}

// rich is a model in which every kind of rule occurs, in both families.
func rich() *dataplane.Model {
	var ports []*dataplane.Port
	add := func(name string, family dataplane.Family, protocol dataplane.Protocol, change func(p *dataplane.Port)) {
		i := len(ports) + 1
		addr := func(last byte) netip.Addr {
			if family == dataplane.IPv4 {
				return netip.AddrFrom4([4]byte{10, last, 0, byte(i)})
			}
			return netip.AddrFrom16([16]byte{0: 0xfd, 1: last, 15: byte(i)})
		}
		p := &dataplane.Port{
			Name: dataplane.PortName{Service: "test/" + name, Protocol: protocol}, Family: family,
			Frontends: []dataplane.Frontend{
				{Kind: dataplane.ClusterIP, Addr: addr(96), Port: 80}, {Kind: dataplane.NodePort, Port: uint16(30000 + i)},
				{Kind: dataplane.ExternalIP, Addr: addr(97), Port: 80}, {Kind: dataplane.LoadBalancerIP, Addr: addr(98), Port: 80},
			},
			Cluster: []dataplane.Endpoint{{Addr: netip.AddrPortFrom(addr(244), 8080), Local: true}, {Addr: netip.AddrPortFrom(addr(245), 8081)}},
		}
		p.Local = p.Cluster[:1]
		change(p)
		ports = append(ports, p)
	}
	for _, family := range []dataplane.Family{dataplane.IPv4, dataplane.IPv6} {
		ranges := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.0/25")}
		all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		if family == dataplane.IPv6 {
			ranges, all = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}, []netip.Prefix{netip.MustParsePrefix("::/0")}
		}
		add("plain", family, dataplane.TCP, func(*dataplane.Port) {})
		add("udp", family, dataplane.UDP, func(*dataplane.Port) {})
		add("sctp", family, dataplane.SCTP, func(*dataplane.Port) {})
		add("local", family, dataplane.TCP, func(p *dataplane.Port) { p.InternalLocal, p.ExternalLocal = true, true })
		add("elsewhere", family, dataplane.TCP, func(p *dataplane.Port) { p.InternalLocal, p.ExternalLocal, p.Local = true, true, nil })
		add("nowhere", family, dataplane.UDP, func(p *dataplane.Port) { p.Cluster, p.Local = nil, nil })
		add("ranges", family, dataplane.TCP, func(p *dataplane.Port) { p.SourceRanges, p.OwnSource = ranges, true })
		add("all", family, dataplane.TCP, func(p *dataplane.Port) { p.SourceRanges = all })
		add("sticky", family, dataplane.TCP, func(p *dataplane.Port) { p.Affinity = time.Hour })
	}
	m := model(ports...)
	m.Host.PodInterfaces = "cali"
	m.Host.LocalhostNodePorts = true
	m.HealthChecks = map[string]dataplane.HealthCheck{"test/local": {Port: 32000, Local: 1}}
	return m
}

func routeLocalnet(t *testing.T) bool {
	t.Helper()
	value, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/route_localnet")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value)) == "1"
}

// With a liberal connection tracking packets out of window are translated too, and need not be dropped.
func TestInvalid(t *testing.T) {
	isolate(t)
	b := newBackend(t, dataplane.Full)
	for _, liberal := range []bool{false, true, false} {
		value := "0"
		if liberal {
			value = "1"
		}
		if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
		sync(t, b, model())
		if dropped := strings.Contains(command(t, "iptables -S KUBE-FORWARD"), "INVALID"); dropped == liberal {
			t.Errorf("nf_conntrack_tcp_be_liberal %s: INVALID is dropped: %v", value, dropped)
		}
	}
}

const everything = "iptables-save; ip6tables-save"

// What is rendered is spelled as the kernel's rules are read back, so that a comparison finds nothing to do, and the restart of the
// speaker costs nothing.
func TestNothingToDo(t *testing.T) {
	for _, variant := range []string{"-nft", "-legacy"} {
		for _, mode := range []dataplane.Mode{dataplane.Full, dataplane.LoadBalancer} {
			t.Run(variant+" "+string(mode), func(t *testing.T) {
				isolate(t)
				// A hint, as the kubelet leaves it.
				command(t, "iptables"+variant+" -t mangle -N KUBE-IPTABLES-HINT")
				m := rich()
				b := newBackend(t, mode)
				sync(t, b, m)
				again := newBackend(t, mode)
				if got := again.families[0].variant; got != variant {
					t.Fatalf("variant %s is used", got)
				}
				for _, f := range again.families {
					r := again.renderer(f, m.Host)
					want := newLayout()
					r.skeleton(want)
					for _, ports := range m.Ports {
						for _, p := range ports {
							if p.Family == f.Family {
								r.port(want, p)
							}
						}
					}
					if r.full {
						r.healthCheck(want, "test/local", m.HealthChecks["test/local"])
					}
					rules, err := f.read(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if inputs := r.compare(rules, want).inputs(); len(inputs) > 0 {
						t.Errorf("%s: a second comparison wants\n%s", f.name(""), strings.Join(inputs, "\n"))
					}
				}
				if err := again.Intact(t.Context()); err != nil {
					t.Error(err)
				}
				if got := routeLocalnet(t); got != (mode == dataplane.Full) {
					t.Errorf("route_localnet is %v", got)
				}
				if err := again.Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
				if routeLocalnet(t) {
					t.Error("after Remove the loopback is open and not guarded")
				}
				for line := range strings.Lines(saved(t, strings.ReplaceAll(everything, "tables", "tables"+variant))) {
					if strings.Contains(line, "STLY-") || strings.Contains(line, "KUBE-") && !strings.Contains(line, "KUBE-IPTABLES-HINT") {
						t.Errorf("after Remove there is still: %s", line)
					}
				}
				if names, err := listSets(); err != nil || len(names) > 0 {
					t.Errorf("after Remove there are IP sets %v (%v)", names, err)
				}
			})
		}
	}
}
