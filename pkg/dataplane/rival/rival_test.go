package rival

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	onMetrics = netip.MustParseAddrPort("127.0.0.1:10249")
	onHealthz = netip.MustParseAddrPort("[::]:10256")
	onCilium  = netip.MustParseAddrPort("127.0.0.1:9879")

	iptablesNFT    = tool{program: "iptables-nft"}
	iptablesLegacy = tool{program: "iptables-legacy"}
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name      string
		sight     sight
		alive     bool
		kind      string
		leftovers []string
	}{
		{name: "nothing"},
		{name: "kube-proxy says its mode", alive: true, kind: KubeProxyNFTables,
			sight: sight{listeners: []listener{{addr: onMetrics, mode: "nftables"}}, chains: []chains{{tool: iptablesNFT, services: true}}}},
		{name: "something else on the metrics port",
			sight: sight{listeners: []listener{{addr: onMetrics}}}},
		{name: "healthz and rules", alive: true, kind: KubeProxyIPTables,
			sight: sight{listeners: []listener{{addr: onHealthz, healthz: true}}, chains: []chains{{tool: iptablesLegacy, services: true}}}},
		{name: "healthz and no rules", alive: true, kind: Unknown,
			sight: sight{listeners: []listener{{addr: onHealthz, healthz: true}}}},
		{name: "healthz of Cilium", alive: true, kind: Cilium,
			sight: sight{listeners: []listener{{addr: onHealthz, healthz: true}}, links: []string{ciliumLink}}},
		{name: "Cilium's own port", alive: true, kind: Cilium,
			sight: sight{listeners: []listener{{addr: onCilium}}, links: []string{ciliumLink}}},
		{name: "Cilium's port without Cilium's interface",
			sight: sight{listeners: []listener{{addr: onCilium}}}},
		{name: "Cilium's interface alone", kind: Cilium, leftovers: []string{"interface cilium_host"},
			sight: sight{links: []string{ciliumLink}}},
		{name: "Cilium after kube-proxy", kind: KubeProxyIPTables,
			leftovers: []string{"chain KUBE-SERVICES in table nat of iptables-nft", "interface cilium_host"},
			sight:     sight{links: []string{ciliumLink}, chains: []chains{{tool: iptablesNFT, services: true}}}},
		{name: "chains of iptables mode", kind: KubeProxyIPTables,
			leftovers: []string{"chain KUBE-PROXY-CANARY in table mangle of iptables-legacy", "chain KUBE-SERVICES in table nat of iptables-legacy"},
			sight:     sight{chains: []chains{{tool: iptablesLegacy, services: true, canary: true}}}},
		{name: "chains of ipvs mode", kind: KubeProxyIPVS,
			leftovers: []string{"chain KUBE-SERVICES in table nat of iptables-nft", "interface kube-ipvs0"},
			sight:     sight{links: []string{ipvsLink}, chains: []chains{{tool: iptablesNFT, services: true}}}},
		{name: "tables of nftables mode", kind: KubeProxyNFTables, leftovers: []string{"nftables table ip kube-proxy", "nftables table ip6 kube-proxy"},
			sight: sight{tables: []string{"ip kube-proxy", "ip6 kube-proxy"}}},
		{name: "our own chains",
			sight: sight{chains: []chains{{tool: iptablesNFT, ours: true}}}},
		{name: "a canary beside our own chains", kind: KubeProxyIPTables, leftovers: []string{"chain KUBE-PROXY-CANARY in table mangle of iptables-nft"},
			sight: sight{chains: []chains{{tool: iptablesNFT, ours: true, canary: true}}}},
		{name: "repaired", alive: true, kind: KubeProxyIPTables,
			sight: sight{repaired: "somebody repaired it", chains: []chains{{tool: iptablesNFT, services: true}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judge(c.sight)
			if (got.Evidence != "") != c.alive {
				t.Errorf("evidence %q with alive %v", got.Evidence, c.alive)
			}
			got.Evidence = ""
			if diff := cmp.Diff(Finding{Alive: c.alive, Kind: c.kind, Leftovers: c.leftovers}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRepaired(t *testing.T) {
	for _, c := range []struct {
		name        string
		before, now chains
		want        string // a part of it
	}{
		{name: "nothing happened",
			before: chains{tool: iptablesNFT, services: true, poked: true, canary: true},
			now:    chains{tool: iptablesNFT, services: true, poked: true}},
		{name: "the canary came back", want: canary + " again, in table mangle",
			before: chains{tool: iptablesNFT, services: true, poked: true, canary: true},
			now:    chains{tool: iptablesNFT, services: true, poked: true, canary: true}},
		{name: "the rules were written again", want: servicesChain,
			before: chains{tool: iptablesNFT, services: true, poked: true},
			now:    chains{tool: iptablesNFT, services: true}},
		{name: "the chain was removed",
			before: chains{tool: iptablesNFT, services: true, poked: true},
			now:    chains{tool: iptablesNFT}},
		{name: "our own chain has no probe",
			before: chains{tool: iptablesNFT, ours: true},
			now:    chains{tool: iptablesNFT, ours: true}},
		{name: "the other variant has a canary of its own",
			before: chains{tool: iptablesNFT, services: true, poked: true},
			now:    chains{tool: iptablesLegacy, canary: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := repaired([]chains{c.before}, []chains{c.now})
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q in it", got, c.want)
			}
		})
	}
}

const tcpHeadings = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestParseListeners(t *testing.T) {
	for _, c := range []struct {
		name, lines string
		want        []netip.AddrPort
		wrong       bool
	}{
		{name: "headings only"},
		{name: "loopback and another port",
			lines: "   0: 0100007F:2809 00000000:0000 0A 0:0\n   1: 00000000:0016 00000000:0000 0A 0:0\n",
			want:  []netip.AddrPort{onMetrics}},
		{name: "all IPv6 addresses",
			lines: "   0: 00000000000000000000000000000000:2810 00000000000000000000000000000000:0000 0A\n",
			want:  []netip.AddrPort{onHealthz}},
		{name: "one IPv6 address",
			lines: "   0: B80D0120000000000000000001000000:2697 00000000000000000000000000000000:0000 0A\n",
			want:  []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:9879")}},
		{name: "a connection to the port", lines: "   0: 0100007F:2809 0100007F:9C40 01\n"},
		{name: "cut off", lines: "   0: 0100\n", wrong: true},
		{name: "an odd address", lines: "   0: 01007F:2809 00000000:0000 0A\n", wrong: true},
		{name: "a port that is none", lines: "   0: 0100007F:x 00000000:0000 0A\n", wrong: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseListeners(strings.NewReader(tcpHeadings + c.lines))
			if (err != nil) != c.wrong {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add(tcpHeadings + "   0: 0100007F:2809 00000000:0000 0A\n")
	f.Add(tcpHeadings + "   0: 00000000000000000000000000000000:2810 0:0 0A\n")
	f.Fuzz(func(t *testing.T, text string) {
		addrs, _ := parseListeners(strings.NewReader(text))
		for _, addr := range addrs {
			if !addr.IsValid() || addr.Port() != metricsPort && addr.Port() != healthzPort && addr.Port() != ciliumPort {
				t.Errorf("%v is not an address with one of the ports", addr)
			}
		}
	})
}
