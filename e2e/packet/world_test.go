package packet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// world is the topology that every scenario has for itself, in IPv4 and IPv6 at once:
//
//	cl 203.0.113.10 --- rt === LAN 192.168.50.0/24 ===+=== n1 192.168.50.11 --- pA1 10.1.1.11
//	                                                  +=== n2 192.168.50.12 --- pB1 10.1.2.11, pB2 10.1.2.12
//	                                                  +=== n3 192.168.50.13 --- pC1 10.1.3.11
//
// Nodes route between each other's pod networks and check the way back of every packet strictly (RFC 3704). The client may use
// every address of 10.99.0.0/16 too.
type world struct {
	hosts map[string]*host
	node  map[string]string // a pod's or a node's node
}

var nodes = []string{"n1", "n2", "n3"}

// pods are all pods of the world, and each node's part of the pod network in their addresses.
var pods = []struct{ name, node string }{{"pA1", "n1"}, {"pB1", "n2"}, {"pB2", "n2"}, {"pC1", "n3"}}

// place is an address in both families.
type place struct{ v4, v6 netip.Addr }

func (p place) in(v6 bool) netip.Addr {
	if v6 {
		return p.v6
	}
	return p.v4
}

// both calls f for the address of each family.
func (p place) both(f func(netip.Addr) error) error {
	if err := f(p.v4); err != nil {
		return err
	}
	return f(p.v6)
}

func at(v4, v6 string, args ...any) place {
	return place{netip.MustParseAddr(fmt.Sprintf(v4, args...)), netip.MustParseAddr(fmt.Sprintf(v6, args...))}
}

// places are the hosts' addresses.
var places = map[string]place{
	"cl":       at("203.0.113.10", "2001:db8:c::10"),
	"rt":       at("192.168.50.1", "2001:db8:1::1"),
	"rt-to-cl": at("203.0.113.1", "2001:db8:c::1"),
	"n1":       at("192.168.50.11", "2001:db8:1::11"),
	"n2":       at("192.168.50.12", "2001:db8:1::12"),
	"n3":       at("192.168.50.13", "2001:db8:1::13"),
	"pA1":      at("10.1.1.11", "fd00:1:1::11"),
	"pB1":      at("10.1.2.11", "fd00:1:2::11"),
	"pB2":      at("10.1.2.12", "fd00:1:2::12"),
	"pC1":      at("10.1.3.11", "fd00:1:3::11"),
}

// clientNets are whose addresses the client may use besides its own.
var clientNets = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16"), netip.MustParsePrefix("fd99::/64")}

// podGateway is the address that a node has towards its pods.
func podGateway(node string) place { return at("10.1.%s.1", "fd00:1:%s::1", node[1:]) }

func podNets(node string) []netip.Prefix {
	g := podGateway(node)
	return []netip.Prefix{netip.PrefixFrom(g.v4, 24).Masked(), netip.PrefixFrom(g.v6, 64).Masked()}
}

func newWorld() (w *world, err error) {
	w = &world{hosts: map[string]*host{}, node: map[string]string{}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for _, name := range append([]string{"cl", "rt"}, nodes...) {
		if w.hosts[name], err = newHost(name); err != nil {
			return nil, err
		}
	}
	if err := w.connectClient(); err != nil {
		return nil, err
	}
	for _, node := range nodes {
		w.node[node] = node
		if err := w.connectNode(node); err != nil {
			return nil, err
		}
	}
	if err := w.connectPodNets(); err != nil {
		return nil, err
	}
	for _, p := range pods {
		if err := w.addPod(p.name, p.node, places[p.name], "pod-"+p.name); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for _, h := range w.hosts {
		if h != nil {
			h.close()
		}
	}
}

func forward(h *host) error {
	if err := h.sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return h.sysctl("net/ipv6/conf/all/forwarding", "1")
}

func (w *world) connectClient() error {
	cl, rt := w.hosts["cl"], w.hosts["rt"]
	if err := forward(rt); err != nil {
		return err
	}
	if err := cable(rt, "cl", cl, "eth0"); err != nil {
		return err
	}
	subnets := func(p place) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(p.v4, 24), netip.PrefixFrom(p.v6, 64)}
	}
	if err := rt.address("cl", subnets(places["rt-to-cl"])...); err != nil {
		return err
	}
	if err := cl.address("eth0", subnets(places["cl"])...); err != nil {
		return err
	}
	for _, p := range clientNets {
		if err := cl.own(p); err != nil {
			return err
		}
		if err := rt.route(p, places["cl"].in(p.Addr().Is6()), "cl"); err != nil {
			return err
		}
	}
	if err := defaultRoutes(cl, places["rt-to-cl"], "eth0"); err != nil {
		return err
	}
	if err := rt.links.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}); err != nil {
		return err
	}
	if err := rt.up("lan"); err != nil {
		return err
	}
	return rt.address("lan", subnets(places["rt"])...)
}

func defaultRoutes(h *host, via place, link string) error {
	return via.both(func(a netip.Addr) error {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if a.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return h.route(all, a, link)
	})
}

func (w *world) connectNode(name string) error {
	node, rt, addr := w.hosts[name], w.hosts["rt"], places[name]
	if err := forward(node); err != nil {
		return err
	}
	for _, all := range []string{"all", "default"} {
		if err := node.sysctl("net/ipv4/conf/"+all+"/rp_filter", "1"); err != nil {
			return err
		}
	}
	if err := cable(rt, name, node, "eth0"); err != nil {
		return err
	}
	port, err := rt.links.LinkByName(name)
	if err != nil {
		return err
	}
	lan, err := rt.links.LinkByName("lan")
	if err != nil {
		return err
	}
	if err := rt.links.LinkSetMaster(port, lan); err != nil {
		return err
	}
	if err := node.address("eth0", netip.PrefixFrom(addr.v4, 24), netip.PrefixFrom(addr.v6, 64)); err != nil {
		return err
	}
	if err := defaultRoutes(node, places["rt"], "eth0"); err != nil {
		return err
	}
	return nil
}

// connectPodNets tells the router and the nodes which node has which pods.
func (w *world) connectPodNets() error {
	for _, node := range nodes {
		for _, p := range podNets(node) {
			via := places[node].in(p.Addr().Is6())
			for _, from := range append([]string{"rt"}, nodes...) {
				if from == node {
					continue
				}
				if err := w.hosts[from].route(p, via, ""); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// addPod makes a pod with a point-to-point link to its node, as Calico does: an endpoint that reaches itself through its node needs no hairpin
// mode of a bridge then.
func (w *world) addPod(name, node string, addr place, link string) error {
	pod, err := newHost(name)
	if err != nil {
		return err
	}
	w.hosts[name], w.node[name] = pod, node
	n, gateway := w.hosts[node], podGateway(node)
	if err := cable(n, link, pod, "eth0"); err != nil {
		return err
	}
	if err := addr.both(func(a netip.Addr) error {
		g := gateway.in(a.Is6())
		if err := n.address(link, single(g)); err != nil {
			return err
		}
		if err := n.route(single(a), netip.Addr{}, link); err != nil {
			return err
		}
		if err := pod.address("eth0", single(a)); err != nil {
			return err
		}
		return pod.route(single(g), netip.Addr{}, "eth0")
	}); err != nil {
		return err
	}
	return defaultRoutes(pod, gateway, "eth0")
}
