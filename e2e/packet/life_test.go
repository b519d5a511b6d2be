package packet

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// What happens to the agent and its rules while Services live on: crashes, foreign hands, checks of health, floods of changes.
var life = []entry{
	{number: 49, name: "an agent dies and comes back, and no connection notices", balancer: true, run: restart},
	{number: 50, name: "somebody flushes the rules", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		acts := [][]string{{"nft", "delete", "table", s.text("ip", "ip6"), "steelyard"}, {"nft", "flush", "ruleset"}}
		if s.Backend == "iptables" {
			command := s.text("iptables", "ip6tables")
			acts = [][]string{{command, "-t", "nat", "-F"}, {command, "-t", "nat", "-F", "POSTROUTING"}, {"nft", "flush", "ruleset"}}
		}
		for _, act := range acts {
			_, err := s.hosts["n1"].run(act...)
			s.must(err)
			s.eventually("after "+strings.Join(act, " ")+" the Service is served again", func() error {
				return s.judge(s.try("cl", tcp(s.vip(1), 80), 500*time.Millisecond), "n1", "pB1")
			})
		}
	}},
	{number: 51, name: "rules of others stay as they are", balancer: true, run: foreign},
	{number: 53, name: "the health check node port", run: healthChecks},
	{number: 54, name: "a node that is to be deleted is not healthy, but alive", run: func(s *scenario) {
		s.sync()
		check := func(path string, want int) {
			s.Helper()
			s.eventually(fmt.Sprintf("%s says %d", path, want), func() error {
				got, err := s.get("cl", tcp(s.addr("n1"), 10256), path)
				if err == nil && got.StatusCode != want {
					err = fmt.Errorf("%s %s", got.Status, got.body)
				}
				return err
			})
		}
		check("/healthz", 200)
		for _, doom := range []func(*corev1.Node){
			func(n *corev1.Node) { n.DeletionTimestamp = ref(metav1.Now()) },
			func(n *corev1.Node) {
				n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: "NoSchedule"}}
			},
		} {
			s.changeNode("n1", doom)
			check("/healthz", 503)
			check("/livez", 200)
			s.changeNode("n1", func(n *corev1.Node) { n.DeletionTimestamp, n.Spec.Taints = nil, nil })
			check("/healthz", 200)
		}
	}},
	{number: 55, name: "thousands of Services change and others do not notice", run: churn},
	{number: 25, name: "node ports are open on every address of the node", run: func(s *scenario) {
		second := s.secondAddress()
		s.service("web", onNodePort(30080))
		s.endpoints("web", on("pB1"))
		s.serves("cl", tcp(s.addr("n1"), 30080), "n1", "pB1")
		s.serves("cl", tcp(second, 30080), "n1", "pB1")
		s.refuses("n1", tcp(s.loopback(), 30080))
	}},
	{number: 25, name: "node ports are open on the primary address only", conf: dataplane.Config{PrimaryOnly: true}, run: func(s *scenario) {
		second := s.secondAddress()
		s.service("web", onNodePort(30080))
		s.endpoints("web", on("pB1"))
		s.serves("cl", tcp(s.addr("n1"), 30080), "n1", "pB1")
		s.refuses("cl", tcp(second, 30080))
		s.refuses("n1", tcp(s.loopback(), 30080))
	}},
	{number: 25, name: "node ports are open on some addresses only", conf: dataplane.Config{NodePortAddresses: []netip.Prefix{
		netip.MustParsePrefix("192.168.50.96/27"), netip.MustParsePrefix("2001:db8:1::100/120"),
	}}, run: func(s *scenario) {
		second := s.secondAddress()
		s.service("web", onNodePort(30080))
		s.endpoints("web", on("pB1"))
		s.sync()
		s.eventually("the node port is open on the address that has come", func() error {
			return s.judge(s.try("cl", tcp(second, 30080), silence), "n1", "pB1")
		})
		s.refuses("cl", tcp(s.addr("n1"), 30080))
	}},
	{number: 25, name: "node ports on the loopback are for the node alone", only: "iptables", once: true, conf: dataplane.Config{LocalhostNodePorts: true}, run: func(s *scenario) {
		s.service("web", onNodePort(30080))
		s.endpoints("web", on("pB1"))
		s.serves("n1", tcp(s.loopback(), 30080), "n1", "pB1")
		// What makes that work lets packets from the LAN to other servers on the loopback in, too (CVE-2020-8558).
		s.echo("n1", 5353)
		received := func() int64 { return s.echoes["n1"].received.Load() }
		s.spoof(s.addr("n1"), 5353)
		s.eventually("a frame to the node's address arrives", func() error {
			if received() == 0 {
				return errors.New("it does not")
			}
			return nil
		})
		for range 5 {
			s.spoof(s.loopback(), 5353)
		}
		s.serves("n1", udp(s.loopback(), 5353), "n1", "n1") // by now the others would have arrived
		if n := received() - 2; n != 0 {
			s.Errorf("%d frames to the loopback came in from the LAN", n)
		}
	}},
}

func (s *scenario) loopback() netip.Addr { return netip.MustParseAddr(s.text("127.0.0.1", "::1")) }

// secondAddress gives n1 another address.
func (s *scenario) secondAddress() netip.Addr {
	s.Helper()
	a := at("192.168.50.111", "2001:db8:1::111").in(s.v6)
	s.must(s.hosts["n1"].address("eth0", netip.PrefixFrom(a, map[bool]int{false: 24, true: 64}[s.v6])))
	return a
}

// spoof sends a UDP datagram from the router in a frame to n1, whatever the address would be routed to.
func (s *scenario) spoof(to netip.Addr, port uint16) {
	s.Helper()
	link, err := s.hosts["n1"].links.LinkByName("eth0")
	s.must(err)
	lan, err := s.hosts["rt"].links.LinkByName("lan")
	s.must(err)
	p := make([]byte, 29)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], s.addr("rt").AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], onesComplement(p[:20]))
	binary.BigEndian.PutUint16(p[20:], 4000)
	binary.BigEndian.PutUint16(p[22:], port)
	binary.BigEndian.PutUint16(p[24:], 9) // no checksum: IPv4 allows that
	s.must(s.hosts["rt"].do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ll := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: lan.Attrs().Index, Halen: 6} // ETH_P_IP in network order
		copy(ll.Addr[:], link.Attrs().HardwareAddr)
		return unix.Sendto(fd, p, 0, ll)
	}))
}

func restart(s *scenario) {
	s.service("web", balanced(s.vip(1)))
	s.service("gone", balanced(s.vip(2)))
	s.service("dns", balanced(s.vip(3)), overUDP)
	s.endpoints("web", on("pB1"))
	s.endpoints("gone", on("pC1"))
	s.endpoints("dns", on("pB1"), on("pB2"), on("pC1"))
	s.via(s.vip(1), "n1")
	s.via(s.vip(2), "n1")
	s.serves("cl", tcp(s.vip(2), 80), "n1", "pC1")
	var udps []udpFlow
	var before []answer
	for range 10 {
		f := s.udpFlow("pA1", netip.AddrPortFrom(s.vip(3), 80))
		udps = append(udps, f)
		before = append(before, ask(f.conn, 1, patience).answer)
	}
	c, err := s.hosts["cl"].stream(netip.AddrPortFrom(s.vip(1), 80))
	s.must(err)
	defer c.conn.Close()
	w := s.hosts["cl"].watchTCP(netip.AddrPortFrom(s.vip(1), 80), 2*time.Millisecond, func(o outcome) bool { return o.by == "pB1" || o.by == "pB2" })

	s.kill("n1")
	s.endpoints("web", on("pB1"), on("pB2"))
	s.deleteService("gone")
	s.deleteSlice("gone-1")
	s.sync()
	s.serves("pA1", tcp(s.vip(1), 80), "", "pB1") // by the rules that the dead one left
	s.restart("n1")
	s.sync()
	if by := names(s.spread("pA1", tcp(s.vip(1), 80), 30)); by != "pB1 pB2" {
		s.Errorf("after the restart %s serve", by)
	}
	s.dead("cl", tcp(s.vip(2), 80))
	if stale := slices.DeleteFunc(s.rules("n1"), func(line string) bool { return !strings.Contains(line, "gone") }); len(stale) > 0 {
		s.Errorf("of the Service that went while the agent was dead there is %q", stale)
	}
	s.unharmed(w, 20)
	s.must(c.alive())
	for i, f := range udps {
		if o := ask(f.conn, 1, patience); o.by != before[i].by || o.saw != before[i].saw {
			s.Errorf("%s: was %v, is %s", f.name, before[i], o)
		}
	}
}

func foreign(s *scenario) {
	s.kill("n2")
	s.kill("n3")
	n1, command := s.hosts["n1"], s.text("iptables", "ip6tables")
	for _, rule := range []string{
		"-t nat -N CNI-HOSTPORT-DNAT", "-t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8443 -j RETURN", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
		"-t nat -A POSTROUTING -s " + s.text("172.17.0.0/16", "fd17::/64") + " ! -o docker0 -j MASQUERADE", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER",
		"-A DOCKER-USER -j RETURN", "-A INPUT -p tcp --dport 22 -j ACCEPT", "-t mangle -A PREROUTING -p tcp --dport 9999 -j MARK --set-mark 0x1",
	} {
		_, err := n1.run(append([]string{command}, strings.Fields(rule)...)...)
		s.must(err)
	}
	_, err := n1.feed("table inet theirs {\n chain c { type filter hook forward priority 0; tcp dport 7 counter accept; }\n set s { type ipv4_addr; elements = { 192.0.2.77 }; }\n}", "nft", "-f", "-")
	s.must(err)
	theirs := func() (list []string) {
		out, err := n1.run(command + "-save")
		s.must(err)
		for line := range strings.SplitSeq(volatile.ReplaceAllString(out, ""), "\n") {
			if !strings.Contains(line, "KUBE-") && !strings.Contains(line, "STLY-") && strings.HasPrefix(line, "-A") {
				list = append(list, line)
			}
		}
		out, err = n1.run("nft", "list", "table", "inet", "theirs")
		s.must(err)
		return append(list, volatile.ReplaceAllString(out, ""))
	}
	before := theirs()
	s.service("web", balanced(s.vip(1)))
	for i := range 100 {
		s.endpoints("web", on([]string{"pB1", "pC1"}[i%2]))
		s.sync()
	}
	s.serves("pA1", tcp(s.vip(1), 80), "", "pC1")
	if after := theirs(); !slices.Equal(after, before) {
		s.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

func healthChecks(s *scenario) {
	s.service("web", balanced(s.vip(1)), externalLocal, healthCheck(32000), ports(portOf("a", "TCP", 80, 8080), portOf("b", "TCP", 81, 9090)))
	s.endpoints("web", on("pB1"), on("pB2"), on("pC1"))
	s.healthCheck("n1", 32000, 503, 0)
	s.healthCheck("n2", 32000, 200, 2)
	s.healthCheck("n3", 32000, 200, 1)
	got, err := s.get("cl", tcp(s.addr("n2"), 32000), "/any/path")
	s.must(err)
	var body struct {
		Service struct{ Namespace, Name string }
		Local   int  `json:"localEndpoints"`
		Healthy bool `json:"serviceProxyHealthy"`
	}
	s.must(json.Unmarshal([]byte(got.body), &body))
	if body.Service.Namespace != namespace || body.Service.Name != "web" || body.Local != 2 || !body.Healthy ||
		got.Header.Get("Content-Type") != "application/json" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
		s.Errorf("got %v and %s", got.Header, got.body)
	}
	s.service("web", externalCluster)
	s.eventually("the health check is closed", func() error {
		if o := s.try("cl", tcp(s.addr("n2"), 32000), silence); !o.refused() {
			return fmt.Errorf("got %s", o)
		}
		return nil
	})
	var taken net.Listener
	s.must(s.hosts["n2"].do(func() (err error) {
		taken, err = net.Listen("tcp", ":32001")
		return err
	}))
	s.service("web", externalLocal, healthCheck(32001))
	s.sync()
	s.eventually("an event tells that the port is taken", func() error {
		if told := s.agents["n2"].told(); !slices.ContainsFunc(told, func(e string) bool { return strings.Contains(e, "web FailedToStartServiceHealthcheck") }) {
			return fmt.Errorf("told %q", told)
		}
		return nil
	})
	taken.Close()
	s.healthCheck("n2", 32001, 200, 2)
}

// churn changes one Service after the other among many, on one node, while a client uses one that does not change.
func churn(s *scenario) {
	const services, changes = 2000, 300
	s.kill("n2")
	s.kill("n3")
	s.service("still")
	s.endpoints("still", on("pB1"))
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		cip := at("10.96.%[1]d.%[2]d", "fd00:96::%[1]d:%[2]d", 1+i/200, i%200).in(s.v6).String()
		s.service(name, func(svc *corev1.Service) { svc.Spec.ClusterIP, svc.Spec.ClusterIPs = cip, []string{cip} })
		s.endpoints(name, on("pB1"), on("pC1"))
	}
	s.sync()
	w := s.hosts["pA1"].watchTCP(netip.AddrPortFrom(s.clusterIP("still"), 80), 2*time.Millisecond, func(o outcome) bool { return o.by == "pB1" })
	for i := range changes {
		time.Sleep(20 * time.Millisecond)
		name := fmt.Sprintf("s%d", i*7%services)
		s.endpoints(name, on("pB2"))
		if i%50 == 49 {
			cip, err := netip.ParseAddr(s.services[name].Spec.ClusterIP)
			s.must(err)
			s.eventually(name+" has moved", func() error {
				return s.judge(s.hosts["pA1"].tcp(netip.Addr{}, netip.AddrPortFrom(cip, 80), time.Second), "pA1", "pB2")
			})
		}
	}
	s.unharmed(w, 100)
}
