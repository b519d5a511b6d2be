package nftables

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// world is a node with two pods and a client. The second pod counts as another node's.
type world struct {
	addrs
	node, client, pod1, pod2 *namespace
	backend                  *Backend
	model                    *dataplane.Model
}

// addrs are the world's addresses in one family.
type addrs struct {
	family                                        dataplane.Family
	clusterIP, vip                                netip.Addr
	nodeAddr, clientAddr, otherAddr, addr1, addr2 netip.Addr
	gateway1, gateway2                            netip.Addr
	bits                                          int // of a network
}

func addrsOf(f dataplane.Family, bits int, list string) addrs {
	var a []netip.Addr
	for _, s := range strings.Fields(list) {
		a = append(a, netip.MustParseAddr(s))
	}
	return addrs{f, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], bits}
}

var families = map[string]addrs{
	"IPv4": addrsOf(dataplane.IPv4, 24,
		"10.96.0.10 192.0.2.1 203.0.113.1 203.0.113.10 203.0.113.200 10.244.1.2 10.244.2.2 10.244.1.1 10.244.2.1"),
	"IPv6": addrsOf(dataplane.IPv6, 64,
		"fd00:96::10 2001:db8:f::1 2001:db8:1::1 2001:db8:1::10 2001:db8:1::200 fd00:244:1::2 fd00:244:2::2 fd00:244:1::1 fd00:244:2::1"),
}

// inBoth runs the test in both families.
func inBoth(t *testing.T, test func(*testing.T, *world)) {
	for name, a := range families {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, a))
		})
	}
}

func newWorld(t *testing.T, a addrs) *world {
	w := &world{addrs: a, node: newNamespace(t), client: newNamespace(t), pod1: newNamespace(t), pod2: newNamespace(t)}
	net := func(addrs ...netip.Addr) (p []netip.Prefix) {
		for _, a := range addrs {
			p = append(p, netip.PrefixFrom(a, w.bits))
		}
		return p
	}
	connect(w.node, "lan", net(a.nodeAddr), w.client, "lan", net(a.clientAddr, a.otherAddr))
	connect(w.node, "pod1", net(a.gateway1), w.pod1, "eth0", net(a.addr1))
	connect(w.node, "pod2", net(a.gateway2), w.pod2, "eth0", net(a.addr2))
	w.client.route(a.nodeAddr.String())
	w.pod1.route(a.gateway1.String())
	w.pod2.route(a.gateway2.String())
	w.node.route(a.clientAddr.String())
	w.node.do(func() error {
		// Without a limit on ICMP errors, of which a second one to the same client would wait for a second.
		for f, v := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0"} {
			if err := os.WriteFile("/proc/sys/net/"+f, []byte(v), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	w.pod1.serve("pod1", 8080)
	w.pod2.serve("pod2", 8080)
	for _, path := range []struct {
		from *namespace
		to   netip.Addr
	}{{w.client, a.addr1}, {w.client, a.addr2}, {w.pod1, a.addr2}, {w.node, a.addr1}} {
		for start := time.Now(); !strings.HasPrefix(path.from.ask("", at(path.to, 8080)), "pod"); {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("%s cannot be reached without Services", path.to)
			}
		}
	}
	w.node.do(func() error { w.backend = newBackend(t, dataplane.Full); return nil })
	w.model = &dataplane.Model{Host: dataplane.Host{PodCIDRs: net(a.addr1)[:1]}, Ports: map[string][]*dataplane.Port{}}
	w.model.Host.PodCIDRs[0] = w.model.Host.PodCIDRs[0].Masked()
	t.Cleanup(func() {
		if t.Failed() {
			w.node.do(func() error { t.Log(nftCommand(t, "list", "ruleset")); return nil })
		}
	})
	return w
}

const nodePort = 30080

// sync gives the Service default/web these endpoints and options.
func (w *world) sync(endpoints []dataplane.Endpoint, options func(*dataplane.Port)) {
	w.node.t.Helper()
	p := &dataplane.Port{
		Name: dataplane.PortName{Service: "default/web", Port: "http", Protocol: dataplane.TCP}, Family: w.family,
		Frontends: []dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: w.clusterIP, Port: 80}, {Kind: dataplane.NodePort, Port: nodePort},
			{Kind: dataplane.LoadBalancerIP, Addr: w.vip, Port: 80}},
		Cluster: endpoints,
	}
	for _, e := range endpoints {
		if e.Local {
			p.Local = append(p.Local, e)
		}
	}
	if options != nil {
		options(p)
	}
	var changed []string
	if w.model.Ports["default/web"] != nil {
		changed = []string{"default/web"}
	}
	w.model.Ports["default/web"] = []*dataplane.Port{p}
	w.node.do(func() error { return w.backend.Sync(w.node.t.Context(), w.model, changed) })
}

func (w *world) e1() dataplane.Endpoint {
	return dataplane.Endpoint{Addr: netip.AddrPortFrom(w.addr1, 8080), Local: true}
}
func (w *world) e2() dataplane.Endpoint {
	return dataplane.Endpoint{Addr: netip.AddrPortFrom(w.addr2, 8080)}
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestPolicyCluster(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		w.sync([]dataplane.Endpoint{w.e1()}, nil)
		expect(t, "client to load balancer", w.client.ask(w.clientAddr.String(), at(w.vip, 80)), "pod1 "+w.gateway1.String())
		expect(t, "client to node port", w.client.ask(w.clientAddr.String(), at(w.nodeAddr, nodePort)), "pod1 "+w.gateway1.String())
		expect(t, "client to ClusterIP", w.client.ask(w.clientAddr.String(), at(w.clusterIP, 80)), "pod1 "+w.gateway1.String())
		expect(t, "node to ClusterIP", w.node.ask("", at(w.clusterIP, 80)), "pod1 "+w.gateway1.String())
		expect(t, "pod to itself", w.pod1.ask("", at(w.clusterIP, 80)), "pod1 "+w.gateway1.String())
		expect(t, "client to another port of the ClusterIP", w.client.ask(w.clientAddr.String(), at(w.clusterIP, 81)), "refused")

		w.sync([]dataplane.Endpoint{w.e2()}, nil)
		expect(t, "pod to ClusterIP", w.pod1.ask("", at(w.clusterIP, 80)), "pod2 "+w.addr1.String())
		expect(t, "pod to load balancer", w.pod1.ask("", at(w.vip, 80)), "pod2 "+w.gateway2.String())

		w.sync(nil, nil)
		for what, to := range map[string]string{"load balancer": at(w.vip, 80), "node port": at(w.nodeAddr, nodePort), "ClusterIP": at(w.clusterIP, 80)} {
			expect(t, what+" without endpoints", w.client.ask(w.clientAddr.String(), to), "refused")
		}
		expect(t, "node to ClusterIP without endpoints", w.node.ask("", at(w.clusterIP, 80)), "refused")
	})
}

func TestPolicyLocal(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		local := func(p *dataplane.Port) { p.ExternalLocal = true }
		w.sync([]dataplane.Endpoint{w.e1(), w.e2()}, local)
		for range 8 {
			expect(t, "client to load balancer", w.client.ask(w.clientAddr.String(), at(w.vip, 80)), "pod1 "+w.clientAddr.String())
			expect(t, "client to node port", w.client.ask(w.clientAddr.String(), at(w.nodeAddr, nodePort)), "pod1 "+w.clientAddr.String())
		}
		w.sync([]dataplane.Endpoint{w.e2()}, local)
		expect(t, "client, no local endpoint", w.client.ask(w.clientAddr.String(), at(w.vip, 80)), "silence")
		expect(t, "client to node port, no local endpoint", w.client.ask(w.clientAddr.String(), at(w.nodeAddr, nodePort)), "silence")
		expect(t, "pod, no local endpoint", w.pod1.ask("", at(w.vip, 80)), "pod2 "+w.addr1.String())
		expect(t, "node, no local endpoint", w.node.ask("", at(w.vip, 80)), "pod2 "+w.gateway2.String())
		w.sync([]dataplane.Endpoint{w.e2()}, func(p *dataplane.Port) { p.InternalLocal = true })
		expect(t, "pod, internal policy, no local endpoint", w.pod1.ask("", at(w.clusterIP, 80)), "silence")
		expect(t, "client to load balancer, internal policy", w.client.ask(w.clientAddr.String(), at(w.vip, 80)), "pod2 "+w.gateway2.String())
	})
}

func TestSourceRanges(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		// The wider one contains the narrower one, which the kernel would not take beside it.
		ranges := []netip.Prefix{netip.PrefixFrom(w.clientAddr, w.clientAddr.BitLen()-6).Masked(), netip.PrefixFrom(w.clientAddr, w.clientAddr.BitLen())}
		w.sync([]dataplane.Endpoint{w.e1()}, func(p *dataplane.Port) { p.SourceRanges = ranges })
		expect(t, "allowed client", w.client.ask(w.clientAddr.String(), at(w.vip, 80)), "pod1 "+w.gateway1.String())
		expect(t, "other client", w.client.ask(w.otherAddr.String(), at(w.vip, 80)), "silence")
		expect(t, "other client to node port", w.client.ask(w.otherAddr.String(), at(w.nodeAddr, nodePort)), "pod1 "+w.gateway1.String())
		w.sync([]dataplane.Endpoint{w.e1()}, func(p *dataplane.Port) { p.SourceRanges = []netip.Prefix{netip.PrefixFrom(w.otherAddr, 0).Masked()} })
		expect(t, "other client, when all are allowed", w.client.ask(w.otherAddr.String(), at(w.vip, 80)), "pod1 "+w.gateway1.String())
	})
}

func TestAffinity(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		sticky := func(timeout time.Duration) func(*dataplane.Port) {
			return func(p *dataplane.Port) { p.Affinity = timeout }
		}
		both := []dataplane.Endpoint{w.e1(), w.e2()}
		pod := func(to string) (answer string) {
			for range 5 { // a starved machine may be late once
				if answer = strings.Fields(w.client.ask(w.clientAddr.String(), to))[0]; answer != "silence" {
					break
				}
			}
			return answer
		}
		w.sync(both, sticky(time.Hour))
		first := pod(at(w.vip, 80))
		for range 10 {
			for what, to := range map[string]string{"load balancer": at(w.vip, 80), "node port": at(w.nodeAddr, nodePort), "ClusterIP": at(w.clusterIP, 80)} {
				expect(t, what, pod(to), first)
			}
		}
		left := []dataplane.Endpoint{w.e2()}
		if first == "pod2" {
			left = []dataplane.Endpoint{w.e1()}
		}
		w.sync(left, sticky(time.Hour))
		second := pod(at(w.vip, 80))
		if second == first {
			t.Errorf("the client still gets %s, which has left", first)
		}
		w.sync(both, sticky(time.Hour))
		for range 10 {
			expect(t, "after the first endpoint came back", pod(at(w.vip, 80)), second)
		}
		w.sync(both, nil)
		for i, seen := 0, map[string]bool{}; len(seen) < 2; i++ {
			if seen[pod(at(w.vip, 80))] = true; i > 200 {
				t.Fatal("the client sticks to an endpoint without affinity")
			}
		}
	})
}

// A client is remembered from its last connection on, not from its first.
func TestAffinityTimeout(t *testing.T) {
	inBoth(t, func(t *testing.T, w *world) {
		const timeout = 1500 * time.Millisecond
		w.sync([]dataplane.Endpoint{w.e1(), w.e2()}, func(p *dataplane.Port) { p.Affinity = timeout })
		var last time.Time
		first, compared := "", 0
		for start := time.Now(); time.Since(start) < 2*timeout; time.Sleep(timeout / 6) {
			now := time.Now()
			pod := strings.Fields(w.client.ask(w.clientAddr.String(), at(w.vip, 80)))[0]
			// On a machine that is too busy for a connection in time there is nothing to compare.
			if first != "" && time.Since(last) < timeout {
				expect(t, fmt.Sprintf("%s after the start", time.Since(start)), pod, first)
				compared++
			}
			first, last = pod, now
		}
		if compared == 0 {
			t.Error("no two connections came within the timeout")
		}
		for i := 0; ; i++ {
			time.Sleep(timeout + 100*time.Millisecond)
			if pod := strings.Fields(w.client.ask(w.clientAddr.String(), at(w.vip, 80)))[0]; pod != first {
				break
			}
			if i > 12 {
				t.Fatal("the client is never forgotten")
			}
		}
	})
}
