package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

func TestRoutersSpreadOverAllNodes(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("spread", f, fromPool("routed")))
		addr := address(t, "spread")
		nextHops(t, r, single(addr), nodes...)
		carriedEverywhere(t, addr)
		reach(t, lab.Host(cluster.Remote), "tcp", addr)
		reach(t, lab.Host(cluster.Remote), "udp", addr)
		spreads(t, "the remote host", fromHost(lab.Host(cluster.Remote)), "tcp", port7000(addr))

		// The connections arrive at all nodes.
		must(t, lab.WaitFor(t.Context(), "every node to have met a connection", func(ctx context.Context) error {
			if _, err := fromHost(lab.Host(cluster.Remote))(ctx, "tcp", port7000(addr)); err != nil {
				return err
			}
			for _, n := range nodes {
				out, err := lab.Host(n).Run(ctx, "conntrack", "-L", "-f", f.conntrack(), "-p", "tcp", "--orig-dst", addr.String())
				if err != nil || !strings.Contains(out, "dport=7000") {
					return fmt.Errorf("%s has not: %w", n, err)
				}
			}
			return nil
		}))
	})
	t.Run("both families", func(t *testing.T) {
		create(t, lbService("both", families[0], fromPool("routed"), dualStack))
		addrs, err := lab.AwaitAddresses(t.Context(), "both", 2)
		must(t, err)
		for _, a := range addrs {
			nextHops(t, r, single(a), nodes...)
		}
	})
}

func (f family) conntrack() string { return strings.ToLower(f.name) }

func TestRoutersFollowEligibility(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", ""))
	eachFamily(t, func(t *testing.T, f family) {
		must(t, lab.Echo(t.Context(), "pinned", "node-2"))
		create(t, lbService("eligible", f, fromPool("routed"), local, selecting("pinned")))
		addr := address(t, "eligible")
		nextHops(t, r, single(addr), "node-2")
		if answer := reach(t, lab.Host(cluster.Remote), "tcp", addr); netip.MustParseAddr(answer.Client) != lab.Address(cluster.Remote, f.name == "IPv6") {
			t.Errorf("the pod saw the client as %s", answer.Client)
		}
		must(t, lab.Echo(t.Context(), "pinned", "node-3"))
		nextHops(t, r, single(addr), "node-3")

		update(t, "eligible", func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster })
		nextHops(t, r, single(addr), nodes...)

		label(t, "node-1", corev1.LabelNodeExcludeBalancers, "")
		nextHops(t, r, single(addr), "node-2", "node-3")
		unlabel(t, "node-1", corev1.LabelNodeExcludeBalancers)
		nextHops(t, r, single(addr), nodes...)

		networkUnavailable(t, "node-2", corev1.ConditionTrue)
		nextHops(t, r, single(addr), "node-1", "node-3")
		networkUnavailable(t, "node-2", corev1.ConditionFalse)
		nextHops(t, r, single(addr), nodes...)

		update(t, "eligible", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "nobody"} })
		nextHops(t, r, single(addr))
	})
}

// TestAttributesReachTheRouter changes an advertisement and reads each time what the router says.
func TestAttributesReachTheRouter(t *testing.T) {
	r := plainRouter(t)
	apply(t, `
apiVersion: steelyard.io/v1beta1
kind: Community
metadata: {name: names}
spec: {communities: [{name: blue, value: "64500:7"}, {name: big, value: "large:64500:1:2"}]}
`)
	apply(t, routedBy("", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("attributes", f, fromPool("routed"), func(s *corev1.Service) { s.Labels = map[string]string{"tier": "gold"} }))
		addr := address(t, "attributes")
		aggregate, field := netip.PrefixFrom(addr, 24).Masked(), "aggregationLength: 24"
		if f.name == "IPv6" {
			aggregate, field = netip.PrefixFrom(addr, 124).Masked(), "aggregationLengthV6: 124"
		}
		for _, tc := range []struct {
			fields string
			prefix netip.Prefix
			want   router.Path
		}{
			{"", single(addr), router.Path{ASPath: "64500"}},
			{`communities: ["64500:100", blue, no-export]`, single(addr), router.Path{ASPath: "64500", Communities: []string{"64500:7", "64500:100", "no-export"}}},
			{`communities: [big, "large:64500:3:4"]`, single(addr), router.Path{ASPath: "64500", Communities: []string{"64500:1:2", "64500:3:4"}}},
			{"asPathPrepend: 2, med: 50", single(addr), router.Path{ASPath: "64500 64500 64500", MED: 50}},
			{field, aggregate, router.Path{ASPath: "64500"}},
			{`serviceSelectors: [{matchLabels: {tier: gold}}]`, single(addr), router.Path{ASPath: "64500"}},
		} {
			must(t, lab.Apply(t.Context(), fmt.Sprintf(told, comma(tc.fields))))
			learned(t, r, tc.prefix, nodes, func(p router.Path) error {
				if p.ASPath != tc.want.ASPath || p.MED != tc.want.MED || !sameWords(p.Communities, tc.want.Communities) {
					return fmt.Errorf("with %q, want %+v", tc.fields, tc.want)
				}
				return nil
			})
			if tc.prefix != single(addr) {
				nextHops(t, r, single(addr))
			}
		}
		must(t, lab.Apply(t.Context(), fmt.Sprintf(told, comma("serviceSelectors: [{matchLabels: {tier: silver}}]"))))
		nextHops(t, r, single(addr))
		update(t, "attributes", func(s *corev1.Service) { s.Labels["tier"] = "silver" })
		nextHops(t, r, single(addr), nodes...)
		must(t, lab.Apply(t.Context(), fmt.Sprintf(told, "")))
	})
}

func sameWords(a, b []string) bool {
	slices.Sort(a)
	b = slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// TestOverlappingAdvertisements: a prefix carries the communities of all that announce it, each node and peer is told what is for it.
func TestOverlappingAdvertisements(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", ""))
	apply(t, `
apiVersion: steelyard.io/v1beta1
kind: BGPAdvertisement
metadata: {name: more}
spec: {ipAddressPools: [routed], communities: ["64500:1"], nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-1}}]}
---
apiVersion: steelyard.io/v1beta1
kind: BGPAdvertisement
metadata: {name: for-v6}
spec: {ipAddressPools: [routed], communities: ["64500:2"], peers: [tor-v6]}
`)
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("overlap", f, fromPool("routed")))
		addr := address(t, "overlap")
		learned(t, r, single(addr), nodes, func(p router.Path) error {
			var want []string
			if p.From == lab.Address("node-1", f.name == "IPv6") {
				want = append(want, "64500:1")
			}
			if f.name == "IPv6" {
				want = append(want, "64500:2")
			}
			if !sameWords(p.Communities, want) {
				return fmt.Errorf("want the communities %v", want)
			}
			return nil
		})
	})
}

// TestPeersAndNodesAreSelected changes labels and selectors in a living cluster.
func TestPeersAndNodesAreSelected(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("nodeSelectors: [{matchLabels: {rack: a}}]", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("selected", f, fromPool("routed")))
		addr := address(t, "selected")
		nextHops(t, r, single(addr))
		label(t, "node-1", "rack", "a")
		nextHops(t, r, single(addr), "node-1")
		label(t, "node-3", "rack", "a")
		nextHops(t, r, single(addr), "node-1", "node-3")

		must(t, lab.Apply(t.Context(), fmt.Sprintf(told, ", nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-3}}]")))
		nextHops(t, r, single(addr), "node-3")
		other := map[string]string{"IPv4": "tor-v6", "IPv6": "tor-v4"}[f.name]
		must(t, lab.Apply(t.Context(), fmt.Sprintf(told, ", peers: ["+other+"]")))
		nextHops(t, r, single(addr))
		must(t, lab.Apply(t.Context(), fmt.Sprintf(told, "")))
		nextHops(t, r, single(addr), "node-1", "node-3")
		unlabel(t, "node-1", "rack")
		unlabel(t, "node-3", "rack")
		nextHops(t, r, single(addr))
	})
}

func TestBothFamiliesOverOneSession(t *testing.T) {
	var global []string
	for i := range lab.Nodes {
		v4, v6 := lab.Address(cluster.NodeName(i+1), false), lab.Address(cluster.NodeName(i+1), true)
		global = append(global, fmt.Sprintf("address-family ipv6 unicast\n neighbor %s activate\n exit-address-family", v4),
			fmt.Sprintf("address-family ipv4 unicast\n neighbor %s activate\n exit-address-family", v6))
	}
	config := lab.RouterConfig() + fmt.Sprintf("router bgp %d\n%s\nexit\n", fixture.RouterASN, strings.Join(global, "\n"))
	for _, over := range []string{"tor-v4", "tor-v6"} {
		t.Run(over, func(t *testing.T) {
			r := frr(t, config)
			apply(t, routedBy("dualStackAddressFamily: true", "peers: ["+over+"]"))
			create(t, lbService("one", families[0], fromPool("routed"), dualStack))
			addrs, err := lab.AwaitAddresses(t.Context(), "one", 2)
			must(t, err)
			for _, a := range addrs {
				nextHops(t, r, single(a), nodes...)
			}
			for _, a := range addrs {
				reach(t, lab.Host(cluster.Remote), "tcp", a)
			}
		})
	}
}

// TestBothProtocols announces one Service on the local network and to routers, and stops one, then the other.
func TestBothProtocols(t *testing.T) {
	r := plainRouter(t)
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, strings.ReplaceAll(strings.ReplaceAll(routedBy("", ""), "198.18.0.0/24", "192.0.2.120-192.0.2.129"), "2001:db8:18::/120", "2001:db8:1::120-2001:db8:1::129"))
		l2 := `
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed]}
`
		apply(t, l2)
		create(t, lbService("protocols", f, fromPool("routed")))
		addr := address(t, "protocols")
		nextHops(t, r, single(addr), nodes...)
		owner(t, addr)
		must(t, lab.Remove(t.Context(), l2))
		must(t, lab.AwaitNoOwner(t.Context(), addr))
		nextHops(t, r, single(addr), nodes...)
		must(t, lab.Apply(t.Context(), l2))
		owner(t, addr)
		must(t, lab.Remove(t.Context(), fmt.Sprintf(told, "")))
		nextHops(t, r, single(addr))
		owner(t, addr)
	})
}

// TestPasswords: a session without its Secret is refused and says so; with a wrong one it does not come up; with the right one it does.
func TestPasswords(t *testing.T) {
	const right = "correct horse"
	r := frr(t, lab.RouterConfig("password "+strings.ReplaceAll(right, " ", "-")))
	apply(t, routedBy("passwordSecret: {name: tor}", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("secret", f, fromPool("routed")))
		addr := address(t, "secret")
		peer := map[string]string{"IPv4": "tor-v4", "IPv6": "tor-v6"}[f.name]
		session(t, "node-1", peer, func(s v1beta1.BGPSessionStatus) error {
			if s.State != "Refused" || s.Reason != "NoPassword" || !strings.Contains(s.LastError, "tor") {
				return fmt.Errorf("want it to be refused for its password")
			}
			return nil
		})
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: fixture.Namespace, Name: "tor"}, Type: corev1.SecretTypeBasicAuth,
			StringData: map[string]string{"password": "wrong"}}
		create(t, secret)
		session(t, "node-1", peer, func(s v1beta1.BGPSessionStatus) error {
			if s.State == "Refused" || s.State == "Established" {
				return fmt.Errorf("want it not to come up")
			}
			return nil
		})
		secret.StringData = map[string]string{"password": strings.ReplaceAll(right, " ", "-")}
		must(t, lab.Update(t.Context(), secret))
		nextHops(t, r, single(addr), nodes...)
		out, err := lab.Kubectl(t.Context(), "logs", "-n", fixture.Namespace, "-l", "app.kubernetes.io/component=speaker", "--tail=-1")
		must(t, err)
		if strings.Contains(out, "correct-horse") {
			t.Error("the password is in a speaker's log")
		}
		must(t, lab.Delete(t.Context(), secret))
	})
}

func TestStatusObjects(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", ""))
	eachFamily(t, func(t *testing.T, f family) {
		s := create(t, lbService("status", f, fromPool("routed")))
		addr := address(t, "status")
		nextHops(t, r, single(addr), nodes...)
		peer := map[string]string{"IPv4": "tor-v4", "IPv6": "tor-v6"}[f.name]
		for _, n := range nodes {
			session(t, n, peer, func(s v1beta1.BGPSessionStatus) error {
				if s.State != "Established" || s.AnnouncedPrefixes != 1 || s.Address != lab.Address(cluster.Router, f.name == "IPv6").String() ||
					s.LocalAddress != lab.Address(n, f.name == "IPv6").String() || time.Since(s.Since.Time) > time.Hour {
					return fmt.Errorf("want an established one with a prefix")
				}
				return nil
			})
			must(t, lab.WaitFor(t.Context(), "the announcement of "+n, func(ctx context.Context) error {
				var a v1beta1.ServiceAnnouncement
				if err := lab.Get(ctx, key("default", "status."+n), &a); err != nil {
					return err
				}
				want := v1beta1.BGPAnnouncement{Prefixes: []string{single(addr).String()}, Peers: []string{peer}}
				if a.Status.BGP == nil || !slices.Equal(a.Status.BGP.Prefixes, want.Prefixes) || !slices.Equal(a.Status.BGP.Peers, want.Peers) {
					return fmt.Errorf("it is %+v, want %+v", a.Status.BGP, want)
				}
				return nil
			}))
		}
		out, err := lab.Kubectl(t.Context(), "get", "serviceannouncements")
		must(t, err)
		if !strings.Contains(out, single(addr).String()) {
			t.Errorf("kubectl get serviceannouncements:\n%s", out)
		}
		must(t, lab.Delete(t.Context(), s))
		must(t, lab.WaitFor(t.Context(), "the announcements to go", func(ctx context.Context) error {
			var all v1beta1.ServiceAnnouncementList
			if err := lab.List(ctx, &all); err != nil {
				return err
			}
			for _, a := range all.Items {
				if a.Status.Service == "status" {
					return fmt.Errorf("%s is there", a.Name)
				}
			}
			return nil
		}))
	})
}

// TestWeightByEndpoints: routers are told how many endpoints a node has of a Service with policy Local.
func TestWeightByEndpoints(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", "weightByEndpoints: true"))
	f := families[0]
	create(t, lbService("weighted", f, fromPool("routed"), local))
	addr := address(t, "weighted")
	learned(t, r, single(addr), nodes, func(p router.Path) error {
		if got := strings.Join(p.Communities, " "); !strings.Contains(got, "LB:64500:125000") {
			return fmt.Errorf("want the bandwidth of one endpoint")
		}
		return nil
	})
}
