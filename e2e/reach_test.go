package e2e

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
)

func TestServiceAnswersClients(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("reach", f))
		addr := address(t, "reach")
		if !f.is(addr) {
			t.Fatalf("the Service has %s, which is not of family %s", addr, f.name)
		}
		for _, network := range []string{"tcp", "udp"} {
			for _, from := range []string{cluster.Client, cluster.Remote} {
				reach(t, lab.Host(from), network, addr)
			}
		}
	})
}

func TestIngressSaysVIP(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		s := create(t, lbService("vip", f))
		address(t, "vip")
		must(t, lab.Get(t.Context(), keyOf(s), s))
		if mode := s.Status.LoadBalancer.Ingress[0].IPMode; mode == nil || *mode != corev1.LoadBalancerIPModeVIP {
			t.Errorf("ipMode is %v, want VIP", mode)
		}
	})
}

func TestLocalPolicyKeepsClientAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		must(t, lab.Echo(t.Context(), "pinned", "node-2"))
		create(t, lbService("local", f, local, selecting("pinned")))
		addr := address(t, "local")
		ownerAmong(t, addr, "node-2")
		answer := reach(t, clientHost(), "tcp", addr)
		want := cluster.LAN4
		if f.name == "IPv6" {
			want = cluster.LAN6
		}
		if got := netip.MustParseAddr(answer.Client); !want.Contains(got) || answer.Node != "node-2" {
			t.Errorf("the pod on %s saw the client as %s, want its own address in %s on node-2", answer.Node, got, want)
		}
	})
}

func TestLocalPolicyFollowsEndpoints(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		must(t, lab.Echo(t.Context(), "wanderer", "node-2"))
		create(t, lbService("follow", f, local, selecting("wanderer")))
		addr := address(t, "follow")
		ownerAmong(t, addr, "node-2")
		must(t, lab.Echo(t.Context(), "wanderer", "node-3"))
		ownerAmong(t, addr, "node-3")
		reach(t, clientHost(), "tcp", addr)
	})
}

func TestNoEndpointsNoOwner(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("empty", f, selecting("nobody")))
		addr := address(t, "empty")
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		update(t, "empty", selecting("echo"))
		owner(t, addr)
		reach(t, clientHost(), "tcp", addr)
	})
}

func TestDualStack(t *testing.T) {
	create(t, lbService("dual", families[0], dualStack))
	addrs, err := lab.AwaitAddresses(t.Context(), "dual", 2)
	must(t, err)
	if !addrs[0].Is4() || !addrs[1].Is6() {
		t.Fatalf("the Service has %v, want one address of each family", addrs)
	}
	if a, b := owner(t, addrs[0]), owner(t, addrs[1]); a != b {
		t.Errorf("%s is announced by %s, %s by %s; one Service has one owner", addrs[0], a, addrs[1], b)
	}
	for _, addr := range addrs {
		reach(t, clientHost(), "tcp", addr)
		reach(t, clientHost(), "udp", addr)
	}
}

func TestReleaseWithdraws(t *testing.T) {
	end := map[string]func(t *testing.T, s *corev1.Service){
		"deleted": func(t *testing.T, s *corev1.Service) { must(t, lab.Delete(t.Context(), s)) },
		"turned into ClusterIP": func(t *testing.T, s *corev1.Service) {
			update(t, s.Name, func(s *corev1.Service) {
				s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeClusterIP, ""
				for i := range s.Spec.Ports {
					s.Spec.Ports[i].NodePort = 0
				}
			})
			_, err := lab.AwaitAddresses(t.Context(), s.Name, 0)
			must(t, err)
		},
	}
	for name, finish := range end {
		t.Run(name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, f family) {
				apply(t, pool("release", lanRange(f, 165, 166)))
				s := create(t, lbService("release", f, fromPool("release")))
				addr := address(t, "release")
				owner(t, addr)
				finish(t, s)
				must(t, lab.AwaitNoOwner(t.Context(), addr))
				create(t, lbService("heir", f, fromPool("release")))
				if got := address(t, "heir"); got != addr {
					t.Errorf("the next Service got %s, want the freed %s, the lowest", got, addr)
				}
			})
		})
	}
}
