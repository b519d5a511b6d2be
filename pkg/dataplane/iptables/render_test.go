package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// text renders a layout as it would be listed, with comments left out.
func text(l *layout) string {
	var b strings.Builder
	for _, c := range l.chains {
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "%s %s %s\n", c.table, c.chain, plain(rule))
		}
	}
	for _, at := range places(l.shared, nil) {
		for _, rule := range l.shared[at] {
			fmt.Fprintf(&b, "%s %s %s\n", at.table, at.chain, plain(rule))
		}
	}
	return b.String()
}

func plain(rule string) string {
	before, rest, found := strings.Cut(rule, `-m comment --comment "`)
	if !found {
		return rule
	}
	_, after, _ := strings.Cut(rest, `"`)
	return strings.TrimSpace(before + strings.TrimPrefix(after, " "))
}

// small is a port with one endpoint here and one elsewhere, and a load-balancer address.
func small(change func(p *dataplane.Port)) *dataplane.Port {
	p := &dataplane.Port{
		Name: dataplane.PortName{Service: "a/b", Protocol: dataplane.UDP}, Family: dataplane.IPv4,
		Frontends: []dataplane.Frontend{
			{Kind: dataplane.ClusterIP, Addr: netip.MustParseAddr("10.96.0.1"), Port: 53},
			{Kind: dataplane.LoadBalancerIP, Addr: netip.MustParseAddr("192.0.2.1"), Port: 53},
		},
		Cluster: []dataplane.Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:53"), Local: true}, {Addr: netip.MustParseAddrPort("10.0.1.1:53")}},
	}
	p.Local = p.Cluster[:1]
	change(p)
	return p
}

func TestRender(t *testing.T) {
	pods := dataplane.Host{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	both := dataplane.Host{PodCIDRs: pods.PodCIDRs, PodInterfaces: "cali"}
	for _, c := range []struct {
		name     string
		mode     dataplane.Mode
		host     dataplane.Host
		change   func(p *dataplane.Port)
		skeleton bool
		want     []string // rules that are there
		not      []string // substrings that are not
	}{
		{
			name: "pods are masqueraded at external addresses only", mode: dataplane.Full, host: pods, change: func(*dataplane.Port) {},
			want: []string{
				"nat KUBE-SVC-X ! -s 10.0.0.0/24 -d 10.96.0.1/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ",
				"nat KUBE-EXT-X -j KUBE-MARK-MASQ", "nat KUBE-EXT-X -j KUBE-SVC-X",
				"nat KUBE-SERVICES -d 10.96.0.1/32 -p udp -m udp --dport 53 -j KUBE-SVC-X",
				"nat KUBE-SERVICES -d 192.0.2.1/32 -p udp -m udp --dport 53 -j KUBE-EXT-X",
			},
			not: []string{"SVL", "FW", "filter"},
		}, {
			name: "without pods nothing is masqueraded at the cluster IP", mode: dataplane.Full, change: func(*dataplane.Port) {},
			not: []string{"KUBE-SVC-X -d", "KUBE-SVC-X ! -s"},
		}, {
			name: "pods on interfaces", mode: dataplane.Full, host: dataplane.Host{PodInterfaces: "cali"}, change: func(p *dataplane.Port) { p.ExternalLocal = true },
			want: []string{
				"nat KUBE-SVC-X -d 10.96.0.1/32 ! -i cali+ -p udp -m udp --dport 53 -j KUBE-MARK-MASQ", "nat KUBE-EXT-X -i cali+ -j KUBE-SVC-X",
			},
		}, {
			name: "pods known in two ways", mode: dataplane.Full, host: both, change: func(*dataplane.Port) {}, skeleton: true,
			want: []string{
				"nat KUBE-SVC-X -d 10.96.0.1/32 -p udp -m udp --dport 53 -j KUBE-MARK-OTHERS",
				"nat KUBE-MARK-OTHERS -s 10.0.0.0/24 -j RETURN", "nat KUBE-MARK-OTHERS -i cali+ -j RETURN", "nat KUBE-MARK-OTHERS -j KUBE-MARK-MASQ",
			},
		}, {
			name: "everything is masqueraded", mode: dataplane.Full, host: dataplane.Host{PodCIDRs: pods.PodCIDRs, MasqueradeAll: true}, change: func(*dataplane.Port) {},
			want: []string{"nat KUBE-SVC-X -d 10.96.0.1/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ"},
		}, {
			name: "external policy Local", mode: dataplane.Full, host: pods, change: func(p *dataplane.Port) { p.ExternalLocal = true },
			want: []string{
				"nat KUBE-EXT-X -s 10.0.0.0/24 -j KUBE-SVC-X", "nat KUBE-EXT-X -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ",
				"nat KUBE-EXT-X -m addrtype --src-type LOCAL -j KUBE-SVC-X", "nat KUBE-EXT-X -j KUBE-SVL-X",
			},
			not: []string{"KUBE-EXT-X -j KUBE-MARK-MASQ", "DROP"},
		}, {
			name: "external policy Local without an endpoint here", mode: dataplane.Full, host: pods,
			change: func(p *dataplane.Port) { p.ExternalLocal, p.Local = true, nil },
			want: []string{
				"nat KUBE-EXT-X -s 10.0.0.0/24 -j KUBE-SVC-X", "filter KUBE-EXTERNAL-SERVICES -d 192.0.2.1/32 -p udp -m udp --dport 53 -j DROP",
			},
			not: []string{"SVL", "REJECT"},
		}, {
			name: "internal policy Local without an endpoint here", mode: dataplane.Full, host: pods,
			change: func(p *dataplane.Port) { p.InternalLocal, p.Local = true, nil },
			want:   []string{"filter KUBE-SERVICES -d 10.96.0.1/32 -p udp -m udp --dport 53 -j DROP", "nat KUBE-EXT-X -j KUBE-SVC-X"},
			not:    []string{"nat KUBE-SERVICES -d 10.96.0.1", "KUBE-SVC-X ! -s"},
		}, {
			name: "no endpoint anywhere", mode: dataplane.Full, host: pods, change: func(p *dataplane.Port) { p.Cluster, p.Local = nil, nil },
			want: []string{
				"filter KUBE-SERVICES -d 10.96.0.1/32 -p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
				"filter KUBE-EXTERNAL-SERVICES -d 192.0.2.1/32 -p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
			},
			not: []string{"-X", "DROP"},
		}, {
			name: "source ranges, and the node's own", mode: dataplane.LoadBalancer, host: pods, skeleton: true,
			change: func(p *dataplane.Port) {
				p.Frontends = p.Frontends[1:]
				p.SourceRanges, p.OwnSource = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25")}, true
			},
			want: []string{
				"nat STLY-FW-X -s 203.0.113.0/25 -j STLY-EXT-X", "nat STLY-FW-X -s 192.0.2.1/32 -j STLY-EXT-X",
				"nat STLY-SERVICES -d 192.0.2.1/32 -p udp -m udp --dport 53 -j STLY-FW-X",
				"filter STLY-PROXY-FIREWALL -d 192.0.2.1/32 -p udp -m udp --dport 53 -j DROP",
				"nat STLY-MARK-MASQ -j MARK --set-xmark 0x2000/0x2000",
			},
			not: []string{"KUBE", "NODEPORTS"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRenderer(c.mode, dataplane.IPv4, c.host, true, true)
			p := small(c.change)
			l := newLayout()
			r.port(l, p)
			if c.skeleton {
				r.skeleton(l)
			}
			got := strings.ReplaceAll(text(l), hash("a/budp"), "X")
			lines := strings.Split(got, "\n")
			for _, want := range c.want {
				if !slices.Contains(lines, want) {
					t.Errorf("missing: %s", want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("there is %q", not)
				}
			}
			if t.Failed() {
				t.Log(got)
			}
		})
	}
}

func TestNodePortAddresses(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::7")}
	for _, c := range []struct {
		family dataplane.Family
		host   dataplane.Host
		want   string
	}{
		{dataplane.IPv4, dataplane.Host{}, "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"},
		{dataplane.IPv4, dataplane.Host{LocalhostNodePorts: true}, "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"},
		{dataplane.IPv6, dataplane.Host{LocalhostNodePorts: true}, "! -d ::1/128 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"},
		{dataplane.IPv4, dataplane.Host{NodePortAddrs: addrs}, "-d 192.0.2.7/32 -j KUBE-NODEPORTS"},
		{dataplane.IPv6, dataplane.Host{NodePortAddrs: addrs}, "-d 2001:db8::7/128 -j KUBE-NODEPORTS"},
		{
			dataplane.IPv4, dataplane.Host{NodePortAddrs: addrs, LocalhostNodePorts: true},
			"-d 192.0.2.7/32 -j KUBE-NODEPORTS, -d 127.0.0.0/8 -j KUBE-NODEPORTS",
		},
	} {
		rules := newRenderer(dataplane.Full, c.family, c.host, true, true).nodePorts()
		for i := range rules {
			rules[i] = plain(rules[i])
		}
		if got := strings.Join(rules, ", "); got != c.want {
			t.Errorf("family %d, %+v:\n got %s\nwant %s", c.family, c.host, got, c.want)
		}
	}
}

// In each run of iptables-restore, what is jumped to is there already or is made by the same run, and a chain that goes is jumped to by
// none that stays.
func TestBatchesHangTogether(t *testing.T) {
	r := newRenderer(dataplane.Full, dataplane.IPv4, dataplane.Host{}, true, true)
	empty, full := newLayout(), newLayout()
	for i := range 1000 {
		r.port(full, numbered(i, 1))
	}
	kernel := map[string][]string{"KUBE-MARK-MASQ": nil, "KUBE-SERVICES": nil}
	for _, input := range slices.Concat(between(empty, full).inputs(), between(full, empty).inputs()) {
		if n := strings.Count(input, "\n:"); n > 2*batch {
			t.Errorf("a run has %d chains", n)
		}
		for line := range strings.Lines(input) {
			words := strings.Fields(line)
			switch rule := strings.Join(words[1:], " "); {
			case strings.HasPrefix(line, ":"):
				kernel[words[0][1:]] = nil
			case strings.HasPrefix(line, "-A"), strings.HasPrefix(line, "-I"):
				kernel[words[1]] = append(kernel[words[1]], rule)
			case strings.HasPrefix(line, "-D"):
				kernel[words[1]] = slices.DeleteFunc(kernel[words[1]], func(have string) bool { return have == rule })
			case strings.HasPrefix(line, "-X"):
				delete(kernel, words[1])
			}
		}
		for name, rules := range kernel {
			for _, rule := range rules {
				if to := target(rule); strings.HasPrefix(to, "KUBE-") {
					if _, exists := kernel[to]; !exists {
						t.Fatalf("chain %s jumps to %s, which is not there: %s", name, to, rule)
					}
				}
			}
		}
	}
	if len(kernel) != 2 || len(kernel["KUBE-SERVICES"]) != 0 {
		t.Errorf("%d chains are left, and %d rules", len(kernel), len(kernel["KUBE-SERVICES"]))
	}
}

// Whatever iptables-save prints, comparing it with a layout does not fail, and asks for no chain of others.
func FuzzCompare(f *testing.F) {
	f.Add("*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\n-A KUBE-SERVICES -j KUBE-SVC-A\nCOMMIT\n")
	f.Add(":KUBE-SVC- - [0:0]\n-A KUBE-SVC- -j\n-A \n:\n-A X")
	r := newRenderer(dataplane.Full, dataplane.IPv4, dataplane.Host{}, true, true)
	want := newLayout()
	r.skeleton(want)
	r.port(want, small(func(*dataplane.Port) {}))
	f.Fuzz(func(t *testing.T, saved string) {
		rules := parse(nat, saved)
		p := r.compare(rules, want)
		for _, at := range p.stale {
			if !mine(at.chain, true) && at.chain != canary {
				t.Errorf("%v would be deleted", at)
			}
		}
		for _, e := range p.remove {
			if !slices.Contains(rules[e.place], e.rule) {
				t.Errorf("%v would be removed, which is not there", e)
			}
		}
		for _, e := range leave(rules).remove {
			if !mine(target(e.rule), true) && target(e.rule) != kubeletFirewall {
				t.Errorf("%v would be removed", e)
			}
		}
	})
}
