package packet

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Traffic policies, source ranges and hints: who may reach which endpoints, and whom they see.
var policies = []entry{
	{number: 5, name: "a pod uses a Local address although its node has no endpoint", balancer: true, run: func(s *scenario) {
		localOnN2(s)
		s.serves("pA1", tcp(s.vip(1), 80), "pA1", "pB1")
	}},
	{number: 6, name: "so does the node itself", balancer: true, run: func(s *scenario) {
		localOnN2(s)
		s.serves("n1", tcp(s.vip(1), 80), "n1", "pB1")
	}},
	{number: 7, name: "a client from outside hears nothing from that node", balancer: true, run: func(s *scenario) {
		localOnN2(s)
		s.silent("cl", tcp(s.vip(1), 80))
	}},
	{number: 8, name: "with policy Local an endpoint sees the client from outside", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), externalLocal)
		s.endpoints("web", on("pA1"), on("pB1"), on("pC1"))
		s.via(s.vip(1), "n1")
		for range 10 {
			s.serves("cl", tcp(s.vip(1), 80), "cl", "pA1")
		}
	}},
	{number: 9, name: "a pod reaches itself through its Service", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), withNodePort(30080))
		s.endpoints("web", on("pA1"))
		s.serves("pA1", tcp(s.vip(1), 80), "n1", "pA1")
		if s.Mode == dataplane.Full {
			s.serves("pA1", tcp(s.clusterIP("web"), 80), "n1", "pA1")
			s.serves("pA1", tcp(s.addr("n1"), 30080), "n1", "pA1")
		}
		s.service("web", externalLocal)
		s.serves("pA1", tcp(s.vip(1), 80), "n1", "pA1")
	}},
	{number: 11, name: "a node with only a terminating endpoint serves new clients, its health check turns them away", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), externalLocal, healthCheck(32000))
		s.endpoints("web", on("pA1").stopping(), on("pB1"))
		s.via(s.vip(1), "n1")
		s.serves("cl", tcp(s.vip(1), 80), "cl", "pA1")
		s.healthCheck("n1", 32000, 503, 0)
		s.healthCheck("n2", 32000, 200, 1)
	}},
	{number: 13, name: "source ranges hold for the load-balancer address only", balancer: true, run: func(s *scenario) {
		outsider := at("10.99.0.200", "fd99::200").in(s.v6)
		s.service("web", balanced(s.vip(1)), withNodePort(30080), sourceRanges(s.text("203.0.113.0/25", "2001:db8:c::/120")))
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.silentAs("cl", outsider, tcp(s.vip(1), 80))
		s.silent("pA1", tcp(s.vip(1), 80))
		if s.Mode == dataplane.Full {
			for _, as := range []netip.Addr{s.addr("cl"), outsider} {
				if o := s.tryAs("cl", as, tcp(s.addr("n1"), 30080), patience); o.by != "pB1" {
					s.Errorf("node port from %s: %s", as, o)
				}
			}
		}
	}},
	{number: 14, name: "source ranges with the node's address let it reach a load-balancer address that is bound on it", balancer: true, run: func(s *scenario) {
		s.must(s.hosts["n1"].address("lo", single(s.vip(1))))
		s.service("web", balanced(s.vip(1)), sourceRanges(s.text("192.168.50.0/24", "2001:db8:1::/64")))
		s.endpoints("web", on("pB1"))
		s.serves("n1", tcp(s.vip(1), 80), "n1", "pB1")
	}},
	{number: 15, name: "source ranges that hold everything, or nothing of the family, restrict nobody", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		for _, ranges := range [][]string{
			{s.text("0.0.0.0/0", "::/0")}, {s.text("0.0.0.0/1", "::/1"), s.text("128.0.0.0/1", "8000::/1")}, {s.text("2001:db8:77::/64", "192.0.2.0/24")},
		} {
			s.service("web", sourceRanges(ranges...))
			s.serves("cl", tcp(s.vip(1), 80), "", "pB1")
			s.serves("pA1", tcp(s.vip(1), 80), "", "pB1")
		}
	}},
	{number: 17, name: "internal policy Local holds for the ClusterIP only", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), withNodePort(30080), internalLocal)
		s.endpoints("web", on("pB1"))
		s.via(s.vip(1), "n1")
		s.silent("pA1", tcp(s.clusterIP("web"), 80))
		s.silent("n1", tcp(s.clusterIP("web"), 80))
		s.serves("pB2", tcp(s.clusterIP("web"), 80), "pB2", "pB1")
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pB1")
		s.serves("cl", tcp(s.addr("n1"), 30080), "n1", "pB1")
		s.serves("pA1", tcp(s.vip(1), 80), "n1", "pB1")
	}},
	{number: 18, name: "an endpoint without a node is never local", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), externalLocal, internalLocal)
		stray := on("pA1")
		stray.nowhere = true
		s.endpoints("web", stray)
		s.via(s.vip(1), "n1")
		s.silent("cl", tcp(s.vip(1), 80))
		s.silent("n1", tcp(s.clusterIP("web"), 80))
		s.serves("n1", tcp(s.vip(1), 80), "n1", "pA1")
		s.service("web", externalCluster, func(svc *corev1.Service) { svc.Spec.InternalTrafficPolicy = nil })
		s.serves("cl", tcp(s.vip(1), 80), "n1", "pA1")
		s.serves("n3", tcp(s.clusterIP("web"), 80), "n3", "pA1")
	}},
	{number: 44, name: "hints are followed while all ready endpoints have them", run: hints},
	{number: 45, name: "Local policies ignore hints", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), externalLocal)
		s.endpoints("web", on("pA1").hint("zone-n3"), on("pB1").hint("zone-n1"))
		s.via(s.vip(1), "n1")
		for range 10 {
			s.serves("cl", tcp(s.vip(1), 80), "cl", "pA1")
		}
	}},
}

// localOnN2 gives a Service with policy Local whose address is at n1, and whose only endpoint is not.
func localOnN2(s *scenario) {
	s.service("web", balanced(s.vip(1)), externalLocal)
	s.endpoints("web", on("pB1"))
	s.via(s.vip(1), "n1")
}

func hints(s *scenario) {
	s.service("web")
	web := tcp(s.clusterIP("web"), 80)
	used := func(from, want string) {
		s.Helper()
		if got := names(s.spread(from, web, 30)); got != want {
			s.Errorf("%s uses %s, want %s", from, got, want)
		}
	}
	// The zones of nodes are n1's and n2's together; n3 is alone in its own.
	s.label("n2", "topology.kubernetes.io/zone", "zone-n1")
	onA, onB, onC := on("pA1").hint("zone-n1"), on("pB1").hint("zone-n1"), on("pC1").hint("zone-n3")
	s.endpoints("web", onA.hintNode("n1"), onB.hintNode("n2"), onC.hintNode("n3"))
	used("n1", "pA1")
	s.endpoints("web", onA.hintNode("n1").failing(), onB.hintNode("n2"), onC.hintNode("n3"))
	used("n1", "pB1")
	s.endpoints("web", onA, onB, onC)
	used("n1", "pA1 pB1")
	used("n3", "pC1")
	s.endpoints("web", onA, onB, on("pC1"))
	used("n1", "pA1 pB1 pC1")
	s.endpoints("web", onA, onB, onC)
	s.label("n3", "topology.kubernetes.io/zone", "zone-n1")
	used("n3", "pA1 pB1")
	s.label("n3", "topology.kubernetes.io/zone", "elsewhere")
	used("n3", "pA1 pB1 pC1")
}

// healthCheck checks what a node answers at a health check node port.
func (s *scenario) healthCheck(node string, port uint16, status, endpoints int) {
	s.Helper()
	s.sync()
	s.eventually(fmt.Sprintf("health check of %s", node), func() error {
		got, err := s.get("cl", tcp(s.addr(node), port), "/")
		if err != nil {
			return err
		}
		if got.StatusCode != status || got.Header.Get("X-Load-Balancing-Endpoint-Weight") != fmt.Sprint(endpoints) {
			return fmt.Errorf("got %s and weight %q, want %d and %d", got.Status, got.Header.Get("X-Load-Balancing-Endpoint-Weight"), status, endpoints)
		}
		return nil
	})
}
