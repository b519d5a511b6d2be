package packet

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Whom the endpoints see, and what else happens to packets on their way.
var sources = []entry{
	{number: 23, name: "a download passes a link for small packets", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pA1"))
		s.via(s.vip(1), "n1")
		rt := s.hosts["rt"]
		link, err := rt.links.LinkByName("cl")
		s.must(err)
		s.must(rt.links.LinkSetMTU(link, 1300)) // towards the client only: its own packets announce 1500
		for _, policy := range []edit{externalCluster, externalLocal} {
			s.service("web", policy)
			s.sync()
			c, err := s.hosts["cl"].stream(netip.AddrPortFrom(s.vip(1), 80))
			s.must(err)
			if err := c.download(1 << 20); err != nil {
				s.Error(err)
			}
			c.conn.Close()
		}
	}},
	{number: 42, name: "who is masqueraded", balancer: true, conf: dataplane.Config{LocalhostNodePorts: true}, run: func(s *scenario) {
		s.matrix(false)
	}},
	{number: 42, name: "who is masqueraded when the node's pods are not known", balancer: true, run: func(s *scenario) {
		for _, n := range nodes {
			s.changeNode(n, func(n *corev1.Node) { n.Spec.PodCIDR, n.Spec.PodCIDRs = "", nil })
		}
		s.matrix(true)
	}},
	{number: 42, name: "who is masqueraded when all are", conf: dataplane.Config{MasqueradeAll: true}, run: func(s *scenario) { s.matrix(false) }},
	{number: 43, name: "pods are known by their interfaces, those that come later too", conf: dataplane.Config{PodInterfaces: "pod-"}, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), externalLocal)
		s.endpoints("web", on("pB1"), on("pC1"))
		s.sync()
		for name, link := range map[string]string{"late": "pod-late", "alien": "vm-alien"} {
			addr := map[string]place{"late": at("10.50.0.1", "fd50::1"), "alien": at("10.50.0.2", "fd50::2")}[name]
			s.must(s.addPod(name, "n2", addr, link))
			for _, n := range []string{"n1", "n3", "rt"} {
				s.must(addr.both(func(a netip.Addr) error { return s.hosts[n].route(single(a), places["n2"].in(a.Is6()), "") }))
			}
		}
		for range 10 {
			s.serves("late", tcp(s.clusterIP("web"), 80), "late", "pB1", "pC1")
			s.serves("late", tcp(s.vip(1), 80), "late", "pB1", "pC1")
			s.serves("alien", tcp(s.clusterIP("web"), 80), "n2", "pB1", "pC1")
			s.serves("alien", tcp(s.vip(1), 80), "alien", "pB1")
		}
	}},
	{number: 48, name: "marks of others survive, ours end on the node", balancer: true, run: marks},
	{number: 52, name: "a packet out of its connection's window does not pass untranslated", balancer: true, run: outOfWindow},
}

// matrix checks which endpoints a client on n2 or outside gets, and whom they see, for each traffic policy and each kind of address. blind: the
// nodes cannot tell what comes from their pods.
func (s *scenario) matrix(blind bool) {
	self := "pB2"
	if s.MasqueradeAll {
		self = "n2"
	}
	const all, local = "pB1 pC1", "pB1"
	for i, c := range []struct {
		name, inside, outside string // what clients get at the ClusterIP, and from outside at external addresses
		edits                 []edit
	}{
		{"cluster", all, all, nil}, {"external-local", all, local, []edit{externalLocal}}, {"internal-local", local, all, []edit{internalLocal}},
	} {
		nodePort, vip, xip := int32(30080+i), s.vip(10+i), s.vip(20+i)
		s.service(c.name, append(c.edits, balanced(vip), withNodePort(nodePort), externalIPs(xip))...)
		s.endpoints(c.name, on("pB1"), on("pC1"))
		cip := tcp(s.clusterIP(c.name), 80)
		for _, a := range []netip.Addr{cip.Addr(), vip, xip} {
			s.via(a, "n2")
		}
		externals := []target{tcp(vip, 80)}
		if s.Mode == dataplane.Full {
			externals = append(externals, tcp(xip, 80), tcp(s.addr("n2"), uint16(nodePort)))
			s.flow("pB2", cip, self, c.inside)
			s.flow("n2", cip, "n2", c.inside)
			switch {
			case !blind:
				s.flow("cl", cip, "n2", c.inside)
			case c.inside == local: // answers from another node would not come back this way
				s.flow("cl", cip, "cl", c.inside)
			}
		}
		for _, to := range externals {
			s.flow("n2", to, "n2", all)
			switch {
			case c.outside == all:
				s.flow("pB2", to, "n2", all)
				s.flow("cl", to, "n2", all)
			case blind:
				s.flow("pB2", to, "pB2", local)
				s.flow("cl", to, "cl", local)
			default:
				s.flow("pB2", to, "pB2", all)
				s.flow("cl", to, "cl", local)
			}
		}
		if s.LocalhostNodePorts && s.Mode == dataplane.Full && s.Backend == "iptables" && !s.v6 {
			s.flow("n2", tcp(netip.MustParseAddr("127.0.0.1"), uint16(nodePort)), "n2", all)
		}
	}
}

// flow checks that a client gets all of the pods, and no other, and that each sees the host named saw.
func (s *scenario) flow(from string, to target, saw, pods string) {
	s.Helper()
	by := map[string]int{}
	for range 24 { // one of two pods is missed by chance once in 2^23 runs
		o := s.try(from, to, patience)
		if err := s.judge(o, saw, strings.Fields(pods)...); err != nil {
			s.Errorf("%s to %s: %v", from, to, err)
			return
		}
		by[o.by]++
	}
	if names(by) != pods {
		s.Errorf("%s to %s: answers of %v, want %s", from, to, by, pods)
	}
}

// marks sends masqueraded packets through a tunnel, and marks them before.
func marks(s *scenario) {
	const user = 0x10000
	s.service("web", balanced(s.vip(1)))
	s.endpoints("web", on("pB1"))
	s.via(s.vip(1), "n1")
	s.sync()
	family := s.text("ip", "ip6")
	_, err := s.hosts["n1"].feed(fmt.Sprintf(`
table %[1]s user {
	counter kept {}
	counter changed {}
	counter leaked {}
	chain before { type filter hook prerouting priority -200; tcp dport 80 meta mark set 0x%[2]x; }
	chain after {
		type filter hook postrouting priority 300;
		tcp dport 8080 meta mark == 0x%[2]x counter name "kept"
		tcp dport 8080 meta mark != 0x%[2]x counter name "changed"
		udp dport 4789 meta mark & 0x6000 != 0 counter name "leaked"
	}
}`, family, user), "nft", "-f", "-")
	s.must(err)
	local, remote := "n1", "n2"
	for _, n := range []string{local, remote} {
		peer := map[string]string{"n1": "n2", "n2": "n1"}[n]
		h := s.hosts[n]
		_, err := h.run("ip", "link", "add", "tunnel", "type", "vxlan", "id", "7", "dstport", "4789", "local", s.addr(n).String(), "remote", s.addr(peer).String())
		s.must(err)
		s.must(h.up("tunnel"))
		s.must(h.address("tunnel", netip.PrefixFrom(tunnelEnd(n).in(s.v6), map[bool]int{false: 24, true: 64}[s.v6])))
	}
	s.must(s.hosts["n1"].route(single(s.addr("pB1")), tunnelEnd("n2").in(s.v6), ""))
	for range 10 {
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
	}
	count := func(name string) string {
		out, err := s.hosts["n1"].run("nft", "list", "counter", family, "user", name)
		s.must(err)
		_, n, _ := strings.Cut(out, "packets ")
		n, _, _ = strings.Cut(n, " ")
		return n
	}
	if kept, changed, leaked := count("kept"), count("changed"), count("leaked"); kept == "0" || changed != "0" || leaked != "0" {
		s.Errorf("packets with the user's mark alone: %s, with another: %s; packets of the tunnel with our mark: %s", kept, changed, leaked)
	}
	out, err := s.hosts["n1"].run("conntrack", "-L", "-f", s.text("ipv4", "ipv6"), "-p", "udp", "--dport", "4789", "--src-nat")
	s.must(err)
	if strings.Contains(out, "4789") {
		s.Errorf("the tunnel's packets were masqueraded once more:\n%s", out)
	}
}

func tunnelEnd(node string) place { return at("10.77.0.%s", "fd77::%s", node[1:]) }

// outOfWindow has an endpoint send a segment that no longer fits its connection. If it reached the client as the endpoint's own, not as the
// Service's, the client would reset the connection (kubernetes/kubernetes#74839).
func outOfWindow(s *scenario) {
	s.service("web", balanced(s.vip(1)))
	s.endpoints("web", on("pB1"))
	s.sync()
	tr, err := startTrace(s.hosts["pA1"])
	s.must(err)
	defer tr.file.Close()
	c, err := s.hosts["pA1"].stream(netip.AddrPortFrom(s.vip(1), 80))
	s.must(err)
	defer c.conn.Close()
	s.must(c.alive())
	var raw net.PacketConn
	s.must(s.hosts["pB1"].do(func() (err error) {
		raw, err = net.ListenPacket(s.text("ip4:6", "ip6:6"), s.addr("pB1").String())
		return err
	}))
	defer raw.Close()
	for i := range 5 {
		p := segment(netip.AddrPortFrom(s.addr("pB1"), 8080), c.saw, uint32(i)<<29+12345)
		_, err := raw.WriteTo(p, &net.IPAddr{IP: c.saw.Addr().AsSlice()})
		s.must(err)
	}
	s.must(c.alive())
	s.must(c.alive())
	if strings.Contains(tr.String(), netip.AddrPortFrom(s.addr("pB1"), 8080).String()+" >") {
		s.Errorf("the client got packets of the endpoint itself:\n%s", tr)
	}
}

// segment is a TCP segment with one byte and a sequence number.
func segment(from, to netip.AddrPort, seq uint32) []byte {
	p := make([]byte, 21)
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	binary.BigEndian.PutUint32(p[4:], seq)
	binary.BigEndian.PutUint32(p[8:], 1)
	p[12], p[13] = 5<<4, 0x18 // PSH, ACK
	binary.BigEndian.PutUint16(p[14:], 1024)
	// The pseudo-header of RFC 9293, 3.1, and of RFC 8200, 8.1, add up to the same: addresses, length and protocol.
	pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, unix.IPPROTO_TCP, 0, byte(len(p))}, p)
	binary.BigEndian.PutUint16(p[16:], onesComplement(pseudo))
	return p
}

// onesComplement is the checksum of RFC 1071.
func onesComplement(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		if i%2 == 0 {
			sum += uint32(x) << 8
		} else {
			sum += uint32(x)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
