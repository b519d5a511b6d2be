package cluster

import (
	"fmt"
	"net/netip"
)

// The machines of a lab. Nodes are node-1, node-2, ...
const (
	Control = "control" // etcd, kube-apiserver, kube-controller-manager, kube-scheduler
	Client  = "client"  // on the nodes' LAN
	Router  = "router"  // between the LAN and the remote host
	Remote  = "remote"  // behind the router
)

// The lab's networks: documentation addresses on the wire (RFC 5737, RFC 3849), private ones inside the cluster.
var (
	LAN4 = netip.MustParsePrefix("192.0.2.0/24")
	LAN6 = netip.MustParsePrefix("2001:db8:1::/64")
	// The second LAN joins the nodes' and the client's eth1.
	Second4 = netip.MustParsePrefix("203.0.113.0/24")
	Second6 = netip.MustParsePrefix("2001:db8:3::/64")
	// WAN joins the router and the remote host.
	WAN4 = netip.MustParsePrefix("198.51.100.0/24")
	WAN6 = netip.MustParsePrefix("2001:db8:2::/64")

	// Server is the API server's address.
	Server = in(LAN4, controlNumber)
	// DNS is the ClusterIP that pods are told to ask for names.
	DNS = netip.MustParseAddr("10.96.0.10")

	serviceCIDRs = "10.96.0.0/16,fd00:10:96::/112"
	podCIDRs     = "10.244.0.0/16,fd00:10:244::/48"
)

const (
	routerNumber  = 1
	controlNumber = 2
	clientNumber  = 200
	remoteNumber  = 2
	firstNode     = 11
)

// NodeName is the name of node number i, counted from 1.
func NodeName(i int) string { return fmt.Sprintf("node-%d", i) }

func lan(number int) (v4, v6 netip.Addr) { return in(LAN4, number), in(LAN6, number) }

// in returns the address with this host number; the number is the same text in both families: 192.0.2.11, 2001:db8:1::11.
func in(p netip.Prefix, number int) netip.Addr {
	base := p.Addr().String()
	if p.Addr().Is4() {
		b := p.Addr().As4()
		b[3] = byte(number)
		return netip.AddrFrom4(b)
	}
	return netip.MustParseAddr(fmt.Sprintf("%s%d", base, number))
}

func nodeNumber(i int) int { return firstNode + i - 1 }

func podCIDR4(i int) string { return fmt.Sprintf("10.244.%d.0/24", i) }
func podCIDR6(i int) string { return fmt.Sprintf("fd00:10:244:%d::/64", i) }

// Address returns a machine's address on the LAN; that of the remote host is on its own network.
func (l *Lab) Address(machine string, v6 bool) netip.Addr {
	number := map[string]int{Control: controlNumber, Router: routerNumber, Client: clientNumber}[machine]
	for i := 1; i <= l.Nodes; i++ {
		if machine == NodeName(i) {
			number = nodeNumber(i)
		}
	}
	a, b := lan(number)
	if machine == Remote {
		a, b = in(WAN4, remoteNumber), in(WAN6, remoteNumber)
	}
	if v6 {
		return b
	}
	return a
}
