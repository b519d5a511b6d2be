package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// onPort makes a Service serve one port of one protocol.
func onPort(protocol corev1.Protocol, port int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = slices.DeleteFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Protocol != protocol })
		s.Spec.Ports[0].Port = port
	}
}

func sharing(key string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations["metallb.io/allow-shared-ip"] = key }
}

func asking(address fmt.Stringer) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations["steelyard.io/loadBalancerIPs"] = address.String() }
}

func preferDualStack(primary family) func(*corev1.Service) {
	prefer := corev1.IPFamilyPolicyPreferDualStack
	return func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &prefer, []corev1.IPFamily{primary.core}
	}
}

// waits waits until a Service has no address for this reason.
func waits(t *testing.T, name, reason string) string {
	t.Helper()
	message := condition(t, name, v1beta1.ConditionAddressAssigned, metav1.ConditionFalse, reason)
	if addrs, err := lab.Addresses(t.Context(), name); err != nil || len(addrs) > 0 {
		t.Errorf("%s waits with the addresses %v, %v", name, addrs, err)
	}
	return message
}

// has waits until a Service has exactly this address.
func has(t *testing.T, name string, want netip.Addr) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s to have %s", name, want), func(ctx context.Context) error {
		got, err := lab.Addresses(ctx, name)
		if err == nil && !slices.Equal(got, []netip.Addr{want}) {
			err = fmt.Errorf("it has %v", got)
		}
		return err
	}))
}

func TestSharedAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, pool("shared", lanRange(f, 160, 163)))
		create(t, lbService("web", f, fromPool("shared"), onPort(corev1.ProtocolTCP, 7000), sharing("one")))
		addr := address(t, "web")
		create(t, lbService("dns", f, asking(addr), onPort(corev1.ProtocolUDP, 7000), sharing("one")))
		has(t, "dns", addr)
		create(t, lbService("stranger", f, asking(addr), onPort(corev1.ProtocolTCP, 7001), sharing("another")))
		if message := waits(t, "stranger", "AddressTaken"); !strings.Contains(message, "default/") {
			t.Errorf("the condition does not name who has the address: %s", message)
		}
		owner(t, addr)
		reach(t, clientHost(), "tcp", addr)
		reach(t, clientHost(), "udp", addr)

		// With the policy Local, Services share only if their pods are the same.
		update(t, "dns", func(s *corev1.Service) { local(s); s.Spec.Selector = map[string]string{"app": "echo", "kind": "none"} })
		waits(t, "dns", "CannotShare")
		has(t, "web", addr)
		update(t, "dns", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "echo"} })
		update(t, "web", local)
		has(t, "dns", addr)
		has(t, "web", addr)
		owner(t, addr)
		reach(t, clientHost(), "udp", addr)

		// Who shares need not ask for the address, and the last one to leave frees it.
		create(t, lbService("third", f, fromPool("shared"), onPort(corev1.ProtocolTCP, 7002), sharing("one"), local))
		has(t, "third", addr)
		for _, name := range []string{"web", "third", "dns"} {
			must(t, lab.Delete(t.Context(), lbService(name, f)))
		}
		has(t, "stranger", addr)
	})
}

// TestFreedAddress: a Service that waits has the address that another one, which is no load balancer any more, had.
func TestFreedAddress(t *testing.T) {
	f := families[0]
	apply(t, pool("single", lanRange(f, 164, 164)))
	create(t, lbService("former", f, fromPool("single")))
	addr := address(t, "former")
	create(t, lbService("latter", f, fromPool("single")))
	waits(t, "latter", "PoolExhausted")
	update(t, "former", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeClusterIP
		s.Spec.ExternalTrafficPolicy = ""
	})
	has(t, "latter", addr)
	reach(t, clientHost(), "tcp", addr)
}

// allocation is a pool of a few addresses with a serviceAllocation, that Services get addresses of without asking.
func allocation(name, addresses, serviceAllocation string) string {
	return fmt.Sprintf("apiVersion: steelyard.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: %s}\nspec:\n  addresses: [%q]\n  serviceAllocation: %s\n---\n",
		name, addresses, serviceAllocation)
}

func namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

func inNamespace(name string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Namespace = name }
}

// pooled waits until a Service has an address of a range.
func pooled(t *testing.T, s *corev1.Service, first, last string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s to have an address of %s-%s", s.Name, first, last), func(ctx context.Context) error {
		if err := lab.Get(ctx, keyOf(s), s); err != nil {
			return err
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			a := netip.MustParseAddr(i.IP)
			if netip.MustParseAddr(first).Compare(a) <= 0 && a.Compare(netip.MustParseAddr(last)) <= 0 {
				return nil
			}
		}
		return fmt.Errorf("it has %v", s.Status.LoadBalancer.Ingress)
	}))
}

func TestServiceAllocation(t *testing.T) {
	f := families[0]
	namespace(t, "tenant", map[string]string{"tier": "gold"})
	apply(t, allocation("first", "198.18.1.0/32", "{priority: 1, namespaces: [tenant]}")+
		allocation("second", "198.18.1.1/32", "{priority: 2, namespaceSelectors: [{matchLabels: {tier: gold}}]}")+
		allocation("third", "198.18.1.2/32", "{priority: 3, serviceSelectors: [{matchLabels: {exposed: public}}]}"))
	for _, p := range []string{"first", "second", "third"} {
		poolStatus(t, p, counts(0, 1, 1, metav1.ConditionFalse))
	}
	in := func(name string, labels map[string]string) *corev1.Service {
		return create(t, lbService(name, f, inNamespace("tenant"), func(s *corev1.Service) { s.Labels = labels }))
	}
	pooled(t, in("one", nil), "198.18.1.0", "198.18.1.0")
	second := in("two", nil)
	pooled(t, second, "198.18.1.1", "198.18.1.1")
	pooled(t, in("three", map[string]string{"exposed": "public"}), "198.18.1.2", "198.18.1.2")
	pooled(t, in("four", nil), "192.0.2.100", "192.0.2.119") // the pool for everybody

	// The namespace is another now: the Service has to leave, and a pool that it may not use can't be asked for.
	var ns corev1.Namespace
	must(t, lab.Get(t.Context(), client.ObjectKey{Name: "tenant"}, &ns))
	ns.Labels["tier"] = "silver"
	must(t, lab.Update(t.Context(), &ns))
	pooled(t, second, "192.0.2.100", "192.0.2.119")
	create(t, lbService("outsider", f, asking(netip.MustParseAddr("198.18.1.0"))))
	waits(t, "outsider", "PoolNotAllowed")
}

func TestDualStackPools(t *testing.T) {
	v4, v6 := families[0], families[1]
	both := func(t *testing.T, name string) []netip.Addr {
		t.Helper()
		addrs, err := lab.AwaitAddresses(t.Context(), name, 2)
		must(t, err)
		return addrs
	}
	t.Run("prefers one pool for both", func(t *testing.T) {
		apply(t, pool("four", "198.18.2.0/32")+"---"+pool("both", "198.18.2.8/32", "2001:db8:18:2::8/128"))
		create(t, lbService("prefers", v4, fromPool("both"), preferDualStack(v4)))
		if got := both(t, "prefers"); got[0].String() != "198.18.2.8" || got[1].String() != "2001:db8:18:2::8" {
			t.Errorf("it has %v", got)
		}
	})
	t.Run("takes the second family when the pool has it", func(t *testing.T) {
		apply(t, pool("growing", "198.18.2.16/32"))
		create(t, lbService("grows", v4, fromPool("growing"), preferDualStack(v6)))
		first := address(t, "grows")
		must(t, lab.Apply(t.Context(), pool("growing", "198.18.2.16/32", "2001:db8:18:2::16/128")))
		if got := both(t, "grows"); got[0] != first {
			t.Errorf("it had %s and has %v", first, got)
		}
		// And gives it up when it is not wanted any more.
		update(t, "grows", func(s *corev1.Service) {
			single := corev1.IPFamilyPolicySingleStack
			s.Spec.IPFamilyPolicy, s.Spec.IPFamilies, s.Spec.ClusterIPs = &single, s.Spec.IPFamilies[:1], s.Spec.ClusterIPs[:1]
		})
		must(t, lab.WaitFor(t.Context(), "one address", func(ctx context.Context) error {
			got, err := lab.Addresses(ctx, "grows")
			if err == nil && (len(got) != 1 || !v6.is(got[0])) {
				err = fmt.Errorf("it has %v", got)
			}
			return err
		}))
	})
	t.Run("takes one family from each of two pools", func(t *testing.T) {
		apply(t, pool("only4", "198.18.2.24/32")+"---"+pool("only6", "2001:db8:18:2::24/128"))
		create(t, lbService("split", v4, fromPool("only4,only6"), dualStack))
		if got := both(t, "split"); got[0].String() != "198.18.2.24" || got[1].String() != "2001:db8:18:2::24" {
			t.Errorf("it has %v", got)
		}
	})
}

func TestPoolDeletedMovesServices(t *testing.T) {
	f := families[0]
	apply(t, allocation("closed", "198.18.3.0/32", "{serviceSelectors: [{matchLabels: {moves: 'yes'}}], priority: 1}"))
	poolStatus(t, "closed", counts(0, 1, 1, metav1.ConditionFalse))
	s := create(t, lbService("mover", f, func(s *corev1.Service) { s.Labels = map[string]string{"moves": "yes"} }))
	pooled(t, s, "198.18.3.0", "198.18.3.0")
	must(t, lab.Delete(t.Context(), &v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: "closed"}}))
	pooled(t, s, "192.0.2.100", "192.0.2.119")
	must(t, lab.WaitFor(t.Context(), "an Event about it", func(ctx context.Context) error {
		if n, err := events(ctx, "mover", "Assigned"); err != nil || n != 1 {
			return fmt.Errorf("there are %d, %v", n, err)
		}
		return nil
	}))
}

// poolStatus waits until a pool's counters and conditions are as they should be.
func poolStatus(t *testing.T, name string, check func(v1beta1.IPAddressPoolStatus) error) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "the status of pool "+name, func(ctx context.Context) error {
		var p v1beta1.IPAddressPool
		if err := lab.Get(ctx, client.ObjectKey{Name: name}, &p); err != nil {
			return err
		}
		if err := check(p.Status); err != nil {
			return fmt.Errorf("%w, it is %+v", err, p.Status)
		}
		return nil
	}))
}

func counts(used, free, total int64, exhausted metav1.ConditionStatus) func(v1beta1.IPAddressPoolStatus) error {
	return func(s v1beta1.IPAddressPoolStatus) error {
		if s.AssignedIPv4 != used || s.AvailableIPv4 != free || s.TotalIPv4 != total {
			return fmt.Errorf("want %d of %d used and %d free", used, total, free)
		}
		for _, c := range s.Conditions {
			if c.Type == "Exhausted" && c.Status == exhausted {
				return nil
			}
		}
		return fmt.Errorf("want Exhausted %s", exhausted)
	}
}

func TestPoolStatus(t *testing.T) {
	f := families[0]
	apply(t, pool("counted", "198.18.4.0/31"))
	poolStatus(t, "counted", counts(0, 2, 2, metav1.ConditionFalse))
	one := create(t, lbService("counted-1", f, fromPool("counted")))
	poolStatus(t, "counted", counts(1, 1, 2, metav1.ConditionFalse))
	create(t, lbService("counted-2", f, fromPool("counted")))
	poolStatus(t, "counted", counts(2, 0, 2, metav1.ConditionTrue))
	must(t, lab.Apply(t.Context(), pool("counted", "198.18.4.0/30")))
	poolStatus(t, "counted", counts(2, 2, 4, metav1.ConditionFalse))
	must(t, lab.Delete(t.Context(), one))
	poolStatus(t, "counted", counts(1, 3, 4, metav1.ConditionFalse))

	_, err := lab.Kubectl(t.Context(), "patch", "ipaddresspools.steelyard.io", "counted", "--subresource=status", "--type=merge", `-p={"status":{"assignedIPv4":77}}`)
	must(t, err)
	poolStatus(t, "counted", counts(1, 3, 4, metav1.ConditionFalse))
}

func reservation(name, addresses, whom string) string {
	return fmt.Sprintf("apiVersion: steelyard.io/v1beta1\nkind: AddressReservation\nmetadata: {name: %s}\nspec: {addresses: [%q]%s}\n---\n", name, addresses, whom)
}

func TestReservations(t *testing.T) {
	f := families[0]
	apply(t, reservation("gateway", "198.18.5.0/32", "")+reservation("spoken-for", "198.18.5.2/32", ", for: {namespace: default, service: awaited}")+pool("reserved", "198.18.5.0/30"))
	poolStatus(t, "reserved", counts(0, 2, 3, metav1.ConditionFalse))
	create(t, lbService("unasked", f, fromPool("reserved")))
	has(t, "unasked", netip.MustParseAddr("198.18.5.1"))
	create(t, lbService("asked", f, asking(netip.MustParseAddr("198.18.5.2"))))
	waits(t, "asked", "AddressReserved")
	create(t, lbService("awaited", f, fromPool("reserved")))
	has(t, "awaited", netip.MustParseAddr("198.18.5.2"))
}

// TestKeptAddress: a Service that asks for it has its address again when it is deleted and created anew, whoever came meanwhile.
func TestKeptAddress(t *testing.T) {
	f := families[0]
	apply(t, pool("kept", "198.18.6.0/30"))
	keep := func(s *corev1.Service) { s.Annotations["steelyard.io/keep-address"] = "true" }
	s := create(t, lbService("kept", f, fromPool("kept"), keep))
	addr := address(t, "kept")
	t.Cleanup(func() {
		_, err := lab.Kubectl(context.Background(), "delete", "addressreservations.steelyard.io", "--all")
		must(t, err)
	})
	reserved := func(want int) {
		t.Helper()
		must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%d reservations", want), func(ctx context.Context) error {
			var list v1beta1.AddressReservationList
			if err := lab.List(ctx, &list); err != nil || len(list.Items) != want {
				return fmt.Errorf("there are %d: %v", len(list.Items), err)
			}
			for _, r := range list.Items {
				if !meta.IsStatusConditionTrue(r.Status.Conditions, "Valid") {
					return fmt.Errorf("%s is not in use: %+v", r.Name, r.Status)
				}
			}
			return nil
		}))
	}
	reserved(1)
	must(t, lab.Delete(t.Context(), s))
	create(t, lbService("meanwhile", f, fromPool("kept")))
	if other := address(t, "meanwhile"); other == addr {
		t.Fatalf("another Service was given the kept address %s", addr)
	}
	create(t, lbService("kept", f, fromPool("kept"), keep))
	has(t, "kept", addr)
	update(t, "kept", func(s *corev1.Service) { delete(s.Annotations, "steelyard.io/keep-address") })
	reserved(0)
	has(t, "kept", addr)
}

func TestNamespaceQuota(t *testing.T) {
	f := families[0]
	namespace(t, "greedy", nil)
	apply(t, `
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: fair}
spec:
  addresses: [198.18.7.0/29]
  autoAssign: false
  namespaceQuotas: [{namespaces: [default], addresses: 1}]
`)
	create(t, lbService("fair-1", f, fromPool("fair")))
	address(t, "fair-1")
	create(t, lbService("fair-2", f, fromPool("fair")))
	if message := waits(t, "fair-2", "QuotaExceeded"); !strings.Contains(message, "fair") || !strings.Contains(message, "default") {
		t.Errorf("the condition names neither pool nor namespace: %s", message)
	}
	for _, name := range []string{"greedy-1", "greedy-2"} {
		pooled(t, create(t, lbService(name, f, inNamespace("greedy"), fromPool("fair"))), "198.18.7.0", "198.18.7.7")
	}
	must(t, lab.Delete(t.Context(), lbService("fair-1", f)))
	address(t, "fair-2")
}

// TestReleasedAddressIsNotReused: with the strategy LeastRecentlyUsed, not even by a controller that has just started.
func TestReleasedAddressIsNotReused(t *testing.T) {
	f := families[0]
	apply(t, `
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: recent}
spec: {addresses: [198.18.8.0/30], autoAssign: false, strategy: LeastRecentlyUsed}
`)
	had := map[netip.Addr]bool{}
	for i := range 3 {
		name := fmt.Sprintf("recent-%d", i)
		s := create(t, lbService(name, f, fromPool("recent")))
		addr := address(t, name)
		if had[addr] {
			t.Fatalf("%s was given %s, which was only just released", name, addr)
		}
		had[addr] = true
		must(t, lab.Delete(t.Context(), s))
		poolStatus(t, "recent", func(s v1beta1.IPAddressPoolStatus) error {
			if len(s.Released) != i+1 {
				return fmt.Errorf("want %d released addresses to be remembered", i+1)
			}
			return nil
		})
		if i == 1 {
			_, err := lab.Kubectl(t.Context(), "rollout", "restart", "-n", "steelyard-system", "deployment/steelyard-controller")
			must(t, err)
			_, err = lab.Kubectl(t.Context(), "rollout", "status", "-n", "steelyard-system", "deployment/steelyard-controller", "--timeout=60s")
			must(t, err)
		}
	}
}
