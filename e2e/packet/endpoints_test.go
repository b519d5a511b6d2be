package packet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Endpoints: which ones get new connections, and what those get when there is none.
var endpoints = []entry{
	{number: 10, name: "terminating endpoints serve only while none is ready", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pB1").stopping())
		web := tcp(s.vip(1), 80)
		s.serves("pA1", web, "", "pB1")
		s.endpoints("web", on("pB1").stopping(), on("pC1"))
		if by := s.spread("pA1", web, 50); by["pC1"] != 50 {
			s.Errorf("new connections went to %v", by)
		}
	}},
	{number: 12, name: "a connection outlives its endpoint's removal", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		s.sync()
		var streams []*stream
		for _, from := range []string{"cl", "pA1", "n1"} {
			c, err := s.hosts[from].stream(netip.AddrPortFrom(s.vip(1), 80))
			s.must(err)
			defer c.conn.Close()
			streams = append(streams, c)
		}
		stopped := on("pB1").stopping()
		stopped.serving = false
		for _, list := range [][]endpoint{{on("pB1").stopping(), on("pC1")}, {stopped, on("pC1")}, {on("pC1")}, {}} {
			s.endpoints("web", list...)
			s.sync()
			for _, c := range streams {
				if err := c.alive(); err != nil {
					s.Fatalf("connection to %s: %v", c.by, err)
				}
			}
		}
	}},
	{number: 16, name: "a Service without endpoints refuses", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), ports(portOf("http", "TCP", 80, 8080), portOf("dns", "UDP", 53, 8080)))
		s.via(s.vip(1), "n1")
		both := func(from string, addr netip.Addr) {
			s.Helper()
			s.refuses(from, tcp(addr, 80))
			s.refuses(from, udp(addr, 53))
		}
		both("cl", s.vip(1))
		both("pA1", s.vip(1))
		both("n1", s.vip(1))
		if s.Mode == dataplane.Full {
			both("pA1", s.clusterIP("web"))
			both("n1", s.clusterIP("web"))
			s.service("web", withNodePort(30080))
			s.refuses("cl", tcp(s.addr("n1"), 30080))
			s.refuses("pA1", tcp(s.addr("n1"), 30080))
		}
	}},
	{number: 31, name: "TCP, UDP and SCTP have the same port and different targets", run: func(s *scenario) {
		s.service("dns", ports(portOf("t", "TCP", 53, 8080), portOf("u", "UDP", 53, 9090), portOf("s", "SCTP", 53, 7070)))
		s.endpoints("dns", on("pB1"))
		serveSCTP(s, "pB1", 7070)
		s.sync()
		for _, c := range []struct {
			to   target
			port uint16
		}{{tcp(s.clusterIP("dns"), 53), 8080}, {udp(s.clusterIP("dns"), 53), 9090}} {
			if o := s.try("pA1", c.to, patience); o.err != nil || o.port != c.port {
				s.Errorf("%s: want port %d, got %s", c.to, c.port, o)
			}
		}
		askSCTP(s, "pA1", netip.AddrPortFrom(s.clusterIP("dns"), 53), "pB1")
		askSCTP(s, "n1", netip.AddrPortFrom(s.clusterIP("dns"), 53), "pB1")
	}},
	{number: 32, name: "endpoints of two slices have different numbers for one named port", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.slice("web", "web-1", on("pB1"))
		other := s.slice("web", "web-2", on("pC1"))
		other.Ports[0].Port = ref(int32(9090))
		s.setSlice(other)
		seen := map[string]bool{}
		for range 50 {
			o := s.try("pA1", tcp(s.vip(1), 80), patience)
			seen[fmt.Sprintf("%s:%d", o.by, o.port)] = true
		}
		if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, []string{"pB1:8080", "pC1:9090"}) {
			s.Errorf("answers of %v", got)
		}
	}},
	{number: 33, name: "an address in two slices serves if one says so", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		web := tcp(s.vip(1), 80)
		for _, bad := range []endpoint{on("pB1").stopping(), on("pB1").failing()} {
			for _, order := range [][]string{{"good", "bad"}, {"bad", "good"}} {
				for _, name := range order {
					s.slice("web", name, map[string]endpoint{"good": on("pB1"), "bad": bad}[name])
				}
				s.serves("pA1", web, "", "pB1")
				s.deleteSlice("bad")
				s.serves("pA1", web, "", "pB1")
				s.deleteSlice("good")
			}
		}
	}},
	{number: 34, name: "an endpoint moves between slices and no connection is refused", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.slice("web", "a", on("pB1"), on("pC1"))
		s.sync()
		w := s.hosts["pA1"].watchTCP(netip.AddrPortFrom(s.vip(1), 80), time.Millisecond, func(o outcome) bool { return o.by == "pB1" || o.by == "pC1" })
		for range 10 {
			s.slice("web", "b", on("pB1")) // there, then gone from the first
			s.slice("web", "a", on("pC1"))
			s.sync()
			s.deleteSlice("b") // gone, then back in the first
			s.slice("web", "a", on("pB1"), on("pC1"))
			s.sync()
		}
		s.unharmed(w, 20)
	}},
	{number: 39, name: "a load-balancer address comes before the endpoints, and goes", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.via(s.vip(1), "n1")
		s.refuses("cl", tcp(s.vip(1), 80))
		s.endpoints("web", on("pB1"))
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.service("web", balanced())
		s.dead("cl", tcp(s.vip(1), 80))
		s.dead("pA1", tcp(s.vip(1), 80))
	}},
	{number: 47, name: "connections spread evenly", balancer: true, run: evenly},
	{number: 56, name: "a Service flips between two sets of endpoints and no connection fails", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.service("other", balanced(s.vip(2)))
		s.endpoints("web", on("pB1"))
		s.endpoints("other", on("pA1"))
		s.via(s.vip(1), "n1")
		s.sync()
		good := func(o outcome) bool { return o.by == "pB1" || o.by == "pC1" }
		watches := []*watch{
			s.hosts["cl"].watchTCP(netip.AddrPortFrom(s.vip(1), 80), time.Millisecond, good),
			s.hosts["pA1"].watchTCP(netip.AddrPortFrom(s.vip(1), 80), time.Millisecond, good),
		}
		for i := range 200 {
			s.endpoints("web", on([]string{"pC1", "pB1"}[i%2]))
			s.endpoints("other", on([]string{"pB2", "pA1"}[i%2]))
			if i%4 == 3 { // some changes alone, some in one batch
				s.sync()
			}
		}
		for _, w := range watches {
			s.unharmed(w, 20)
		}
	}},
	{number: 57, name: "Services share an address by their ports", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.service("alt", balanced(s.vip(1)), ports(portOf("http", "TCP", 8000, 8080)))
		s.endpoints("web", on("pB1"))
		s.endpoints("alt", on("pC1"))
		s.via(s.vip(1), "n1")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.serves("cl", tcp(s.vip(1), 8000), "n1", "pC1")
		s.deleteService("alt")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.dead("cl", tcp(s.vip(1), 8000))
	}},
	{number: 59, name: "bad data harms nobody else", run: func(s *scenario) {
		s.service("bad", balanced(s.vip(2)), sourceRanges(" "+s.text("203.0.113.0/25", "2001:db8:c::/120"), "rubbish"), func(svc *corev1.Service) {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "bogus"}, corev1.LoadBalancerIngress{Hostname: "lb"})
			svc.Spec.Ports = append(svc.Spec.Ports, portOf("zero", "TCP", 0, 0), portOf("odd", "ICMP", 8, 8))
			svc.Spec.ExternalIPs = []string{"nonsense", ""}
		})
		slice := s.slice("bad", "bad-1", on("pB1"))
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{}, discoveryv1.EndpointPort{Name: ref("zero"), Port: ref(int32(0))})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{"garbage"}},
			discoveryv1.Endpoint{Addresses: []string{s.text("2001:db8::1", "198.51.100.1")}})
		s.setSlice(slice)
		s.service("web")
		s.endpoints("web", on("pC1"))
		s.via(s.vip(2), "n1")
		s.serves("pA1", tcp(s.clusterIP("web"), 80), "pA1", "pC1")
		s.serves("pA1", tcp(s.clusterIP("bad"), 80), "pA1", "pB1")
		s.serves("cl", tcp(s.vip(2), 80), "", "pB1")
		s.silent("pA1", tcp(s.vip(2), 80))
	}},
}

func ref[T any](v T) *T { return &v }

// unharmed ends a watch after at least some connections and checks that none went wrong.
func (s *scenario) unharmed(w *watch, least int) {
	s.Helper()
	s.sync()
	s.eventually("the watch has seen enough", func() error {
		if w.tried() < least {
			return fmt.Errorf("%d connections", w.tried())
		}
		return nil
	})
	if bad := w.stop(); len(bad) > 0 {
		s.Errorf("%d of %d connections went wrong; the first: %s", len(bad), w.tried(), bad[0])
	}
}

// evenly judges by Pearson's chi-squared statistic. The limits are passed by chance once in 10^9 runs.
func evenly(s *scenario) {
	s.service("web", balanced(s.vip(1)))
	web := tcp(s.vip(1), 80)
	even := func(counts map[string]int, kinds, connections int, limit float64) {
		s.Helper()
		want, chi := float64(connections)/float64(kinds), 0.0
		for _, n := range counts {
			chi += (float64(n) - want) * (float64(n) - want) / want
		}
		chi += want * float64(kinds-len(counts))
		if chi > limit {
			s.Errorf("%d connections over %d endpoints: %v, chi-squared %.1f > %.1f", connections, kinds, counts, chi, limit)
		}
	}
	s.endpoints("web", on("pB1"))
	even(s.spread("pA1", web, 20), 1, 20, 0)
	s.endpoints("web", on("pB1"), on("pB2"), on("pC1"))
	even(s.spread("pA1", web, 600), 3, 600, 41.4)

	for port := uint16(7001); port <= 7017; port++ {
		s.echo("pB1", port)
		slice := s.slice("web", fmt.Sprintf("web-%d", port), on("pB1"))
		slice.Ports[0].Port = ref(int32(port))
		s.setSlice(slice)
	}
	s.deleteSlice("web-1")
	counts := map[string]int{}
	for range 850 {
		o := s.try("pA1", web, patience)
		if o.err != nil {
			s.Fatal(o)
		}
		counts[fmt.Sprint(o.port)]++
	}
	even(counts, 17, 850, 78)
}
