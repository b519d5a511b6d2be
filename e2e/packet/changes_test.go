package packet

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Changes of Services: what was ends, and nothing is left of it.
var changes = []entry{
	{number: 35, name: "ports are renamed, retargeted and renumbered", run: renumber},
	{number: 36, name: "a Service goes through all types and leaves no rule behind", run: func(s *scenario) {
		s.endpointsOfUnknown("web", "pB1")
		s.service("still")
		s.sync()
		empty := s.rules("n1")
		s.service("web")
		s.serves("pA1", tcp(s.clusterIP("web"), 80), "pA1", "pB1")
		plain := s.rules("n1")
		if len(plain) <= len(empty) {
			s.Fatalf("a Service more has %d rules, none %d", len(plain), len(empty))
		}
		s.via(s.vip(1), "n1")
		for range 2 {
			s.service("web", onNodePort(30080))
			s.serves("cl", tcp(s.addr("n1"), 30080), "n1", "pB1")
			s.service("web", balanced(s.vip(1)), sticky(60), externalLocal, healthCheck(32000))
			s.serves("n1", tcp(s.vip(1), 80), "n1", "pB1")
			s.service("web", asClusterIP, sticky(0))
			s.dead("cl", tcp(s.addr("n1"), 30080))
			s.dead("cl", tcp(s.vip(1), 80))
			s.sameRules("n1", plain)
			s.service("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeExternalName })
			s.dead("pA1", tcp(s.clusterIP("web"), 80))
			s.sameRules("n1", empty)
			s.service("web", asClusterIP)
			s.serves("pA1", tcp(s.clusterIP("web"), 80), "pA1", "pB1")
		}
		s.deleteService("web")
		s.sync()
		s.sameRules("n1", empty)
	}},
	{number: 37, name: "labels give a Service or its slices to somebody else", run: func(s *scenario) {
		s.service("web")
		slice := s.slice("web", "web-1", on("pB1"))
		web := tcp(s.clusterIP("web"), 80)
		s.serves("pA1", web, "pA1", "pB1")
		s.service("web", func(svc *corev1.Service) {
			svc.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "else"}
		})
		s.dead("pA1", web)
		s.service("web", func(svc *corev1.Service) { svc.Labels = nil })
		s.serves("pA1", web, "pA1", "pB1")
		labelled := slice.DeepCopy()
		labelled.Labels[corev1.IsHeadlessService] = ""
		s.setSlice(labelled)
		s.refuses("pA1", web)
		s.setSlice(slice)
		s.serves("pA1", web, "pA1", "pB1")
	}},
	{number: 38, name: "an address with ipMode Proxy is left alone", balancer: true, run: func(s *scenario) {
		proxy := corev1.LoadBalancerIPModeProxy
		s.service("web", balanced(s.vip(1), s.vip(2)), func(svc *corev1.Service) { svc.Status.LoadBalancer.Ingress[1].IPMode = &proxy })
		s.endpoints("web", on("pB1"))
		s.must(s.hosts["rt"].address("lo", single(s.vip(2))))
		s.echo("rt", 80)
		s.serves("pA1", tcp(s.vip(1), 80), "", "pB1")
		s.serves("pA1", tcp(s.vip(2), 80), "pA1", "rt")
		s.serves("n1", tcp(s.vip(2), 80), "n1", "rt")
	}},
	{number: 40, name: "a load balancer without node ports", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), func(svc *corev1.Service) { svc.Spec.AllocateLoadBalancerNodePorts = ref(false) })
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.refuses("cl", tcp(s.addr("n1"), 80))
		s.refuses("cl", tcp(s.addr("n1"), 8080))
	}},
	{number: 41, name: "an external address that no node has", run: func(s *scenario) {
		s.service("web", externalIPs(s.vip(9)))
		s.endpoints("web", on("pB1"), on("pC1"))
		s.via(s.vip(9), "n1")
		s.serves("pA1", tcp(s.vip(9), 80), "n1", "pB1", "pC1")
		s.serves("n1", tcp(s.vip(9), 80), "n1", "pB1", "pC1")
		s.serves("cl", tcp(s.vip(9), 80), "n1", "pB1", "pC1")
	}},
	{number: 46, name: "a Service of two families, of which one has no endpoints", once: true, run: dualStack},
	{number: 58, name: "the wrong port of a ClusterIP is refused", only: "nftables", run: func(s *scenario) {
		s.service("web")
		s.endpoints("web", on("pB1"))
		s.refuses("pA1", tcp(s.clusterIP("web"), 81))
		s.refuses("n1", tcp(s.clusterIP("web"), 81))
	}},
	{number: 58, name: "the wrong port of a ClusterIP makes no loop", run: func(s *scenario) {
		s.service("web")
		s.endpoints("web", on("pB1"))
		s.sync()
		tr, err := startTrace(s.hosts["n1"])
		s.must(err)
		defer tr.file.Close()
		s.dead("pA1", tcp(s.clusterIP("web"), 81))
		if strings.Contains(tr.String(), s.text("protocol 1 type 11", "protocol 58 type 3")) {
			s.Error("a packet went round until its time to live was over")
		}
	}},
}

func asClusterIP(svc *corev1.Service) {
	svc.Spec.Type = corev1.ServiceTypeClusterIP
	svc.Spec.Ports[0].NodePort, svc.Spec.HealthCheckNodePort = 0, 0
	svc.Spec.ExternalTrafficPolicy = ""
	svc.Status.LoadBalancer.Ingress = nil
}

// endpointsOfUnknown gives endpoints to a Service that does not exist.
func (s *scenario) endpointsOfUnknown(service, pod string) {
	s.Helper()
	svc := s.service(service)
	s.endpoints(service, on(pod))
	s.sync()
	s.tellAll(order{Key: key(svc), DeleteService: true})
	delete(s.services, service)
}

// volatile is what may differ between two listings of the same rules: counters, what clients did, and the times left.
var volatile = regexp.MustCompile(`\[\d+:\d+\]|# .*|counter packets \d+ bytes \d+|expires \S+|handle \d+`)

// rules are the rules of a node's own backend.
func (s *scenario) rules(node string) []string {
	s.Helper()
	s.sync()
	var lines []string
	commands := [][]string{{"iptables-save", "-t", "nat"}, {"iptables-save", "-t", "filter"}, {"ip6tables-save", "-t", "nat"}, {"ip6tables-save", "-t", "filter"}}
	if s.Backend == "nftables" {
		commands = [][]string{{"nft", "list", "table", "ip", "steelyard"}, {"nft", "list", "table", "ip6", "steelyard"}}
	}
	for _, c := range commands {
		out, err := s.hosts[node].run(c...)
		s.must(err)
		for line := range strings.SplitSeq(volatile.ReplaceAllString(out, ""), "\n") {
			// The listing writes several elements on a line.
			for part := range strings.SplitSeq(strings.TrimSpace(line), ", ") {
				// The chains and maps of nftables are all Services' together, and stay.
				if part = strings.Trim(part, ", "); part != "" && (s.Backend == "iptables" || strings.Contains(part, namespace+"/")) {
					lines = append(lines, part)
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// sameRules waits until a node's rules are what they were.
func (s *scenario) sameRules(node string, want []string) {
	s.Helper()
	s.eventually("the rules are what they were", func() error {
		got := s.rules(node)
		for _, line := range got {
			if !slices.Contains(want, line) {
				return fmt.Errorf("there is more: %q", line)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("there are %d lines, not %d", len(got), len(want))
		}
		return nil
	})
}

func renumber(s *scenario) {
	web := s.clusterIP("web")
	s.service("web", onNodePort(30080))
	s.endpoints("web", on("pB1"))
	s.serves("pA1", tcp(web, 80), "pA1", "pB1")
	change := func(ports edit) {
		s.service("web", ports)
		s.endpoints("web", on("pB1"))
	}
	renamed := portOf("www", "TCP", 80, 9090)
	renamed.NodePort = 30080
	change(ports(renamed))
	for _, to := range []target{tcp(web, 80), tcp(s.addr("n1"), 30080)} {
		if o := s.try("pA1", to, patience); o.port != 9090 {
			s.Errorf("after a change of the target port, %s: %s", to, o)
		}
	}
	moved := portOf("www", "TCP", 81, 9090)
	moved.NodePort = 30081
	change(ports(moved))
	s.serves("pA1", tcp(web, 81), "pA1", "pB1")
	s.serves("cl", tcp(s.addr("n1"), 30081), "n1", "pB1")
	s.dead("pA1", tcp(web, 80))
	s.refuses("cl", tcp(s.addr("n1"), 30080))

	s.service("dns", overUDP, onNodePort(30053))
	s.endpoints("dns", on("pB1"))
	flow := s.udpFlow("cl", netip.AddrPortFrom(s.addr("n1"), 30053))
	flow.answeredBy("pB1")
	s.service("dns", func(svc *corev1.Service) { svc.Spec.Ports[0].TargetPort.IntVal = 9090 })
	s.endpoints("dns", on("pB1"))
	s.sync()
	s.eventually("the flow follows the target port", func() error {
		if o := ask(flow.conn, 1, 200*time.Millisecond); o.port != 9090 {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
}

func dualStack(s *scenario) {
	two := func(p place) []string { return []string{p.v4.String(), p.v6.String()} }
	cips, lbs := at("10.96.7.7", "fd00:96::7:7"), at("192.0.2.7", "2001:db8:2::7")
	s.service("web", balanced(lbs.v4, lbs.v6), withNodePort(30080), func(svc *corev1.Service) {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = cips.v4.String(), two(cips)
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	})
	s.endpoints("web", on("pB1"))
	six := s.slices["web-1"].DeepCopy()
	six.Name, six.AddressType = "web-6", "IPv6"
	six.Endpoints[0].Addresses = []string{places["pB1"].v6.String()}
	s.setSlice(six)
	s.must(lbs.both(func(a netip.Addr) error { return s.hosts["rt"].route(single(a), places["n1"].in(a.Is6()), "") }))
	everywhere := func(p place, port uint16, check func(from string, to target)) {
		_ = p.both(func(a netip.Addr) error {
			check("cl", tcp(a, port))
			return nil
		})
	}
	serves := func(from string, to target) { s.serves(from, to, "n1", "pB1") }
	everywhere(lbs, 80, serves)
	everywhere(places["n1"], 30080, serves)
	_ = cips.both(func(a netip.Addr) error {
		s.serves("pA1", tcp(a, 80), "pA1", "pB1")
		return nil
	})
	s.deleteSlice("web-6")
	serves("cl", tcp(lbs.v4, 80))
	s.refuses("cl", tcp(lbs.v6, 80))
	s.refuses("cl", tcp(places["n1"].v6, 30080))
	s.refuses("pA1", tcp(cips.v6, 80))
	s.serves("pA1", tcp(cips.v4, 80), "pA1", "pB1")
}
