package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// pool is a pool of one family that Services get addresses of only when they name it.
func pool(name string, ranges ...string) string {
	return fmt.Sprintf(`
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: %s}
spec: {autoAssign: false, addresses: ["%s"]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: %[1]s}
spec: {ipAddressPools: [%[1]s]}
`, name, strings.Join(ranges, `", "`))
}

// lanRange is a range of the clients' LAN between two host numbers.
func lanRange(f family, from, to int) string {
	if f.name == "IPv4" {
		return fmt.Sprintf("192.0.2.%d-192.0.2.%d", from, to)
	}
	return fmt.Sprintf("2001:db8:1::%d-2001:db8:1::%d", from, to)
}

func TestPoolChanges(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, pool("changing", lanRange(f, 140, 141)))
		create(t, lbService("changing", f, fromPool("changing")))
		first := address(t, "changing")
		owner(t, first)

		// Still covered: the address stays.
		must(t, lab.Apply(t.Context(), pool("changing", lanRange(f, 140, 145))))
		if now := address(t, "changing"); now != first {
			t.Errorf("widening the pool moved the Service from %s to %s", first, now)
		}
		// No longer covered: the Service moves, and the old address falls silent.
		must(t, lab.Apply(t.Context(), pool("changing", lanRange(f, 143, 145))))
		second := awaitAddressOtherThan(t, "changing", first)
		must(t, lab.AwaitNoOwner(t.Context(), first))
		owner(t, second)
		reach(t, clientHost(), "tcp", second)

		// Deleted: the Service waits and says why.
		must(t, lab.Remove(t.Context(), pool("changing", lanRange(f, 143, 145))))
		_, err := lab.AwaitAddresses(t.Context(), "changing", 0)
		must(t, err)
		message := condition(t, "changing", v1beta1.ConditionAddressAssigned, metav1.ConditionFalse, "UnknownPool")
		if !strings.Contains(message, "changing") {
			t.Errorf("the condition does not name the pool: %s", message)
		}
		must(t, lab.AwaitNoOwner(t.Context(), second))

		// Made again: served again.
		must(t, lab.Apply(t.Context(), pool("changing", lanRange(f, 140, 141))))
		owner(t, address(t, "changing"))
	})
}

func awaitAddressOtherThan(t *testing.T, service string, old interface{ String() string }) (addr netip.Addr) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), service+" to leave "+old.String(), func(ctx context.Context) error {
		addrs, err := lab.Addresses(ctx, service)
		if err != nil {
			return err
		}
		if len(addrs) != 1 || addrs[0].String() == old.String() {
			return fmt.Errorf("it has %v", addrs)
		}
		addr = addrs[0]
		return nil
	}))
	return addr
}

func TestExhaustedPool(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, pool("small", lanRange(f, 150, 151)))
		last := "small-3-" + strings.ToLower(f.name)
		one := create(t, lbService("small-1", f, fromPool("small")))
		freed := address(t, "small-1")
		create(t, lbService("small-2", f, fromPool("small")))
		address(t, "small-2")
		create(t, lbService(last, f, fromPool("small")))
		message := condition(t, last, v1beta1.ConditionAddressAssigned, metav1.ConditionFalse, "PoolExhausted")
		if !strings.Contains(message, "small") || !strings.Contains(message, "2 of 2") {
			t.Errorf("the condition does not say that 2 of 2 addresses of pool small are in use: %s", message)
		}
		must(t, lab.WaitFor(t.Context(), "one Event about it", func(ctx context.Context) error {
			n, err := events(ctx, last, "PoolExhausted")
			if err == nil && n != 1 {
				err = fmt.Errorf("there are %d", n)
			}
			return err
		}))
		must(t, lab.Delete(t.Context(), one))
		if got := address(t, last); got != freed {
			t.Errorf("the waiting Service got %s, want the freed %s", got, freed)
		}
		condition(t, last, v1beta1.ConditionAddressAssigned, metav1.ConditionTrue, "Assigned")
		owner(t, freed)
		reach(t, clientHost(), "tcp", freed)
	})
}

// events counts the Events of a Service with a reason, but not of an earlier one of its name; a repetition counts as often as it happened.
func events(ctx context.Context, service, reason string) (int, error) {
	var s corev1.Service
	if err := lab.Get(ctx, key("default", service), &s); err != nil {
		return 0, err
	}
	var list corev1.EventList
	if err := lab.List(ctx, &list, client.InNamespace("default")); err != nil {
		return 0, err
	}
	n := 0
	for _, e := range list.Items {
		if e.InvolvedObject.UID == s.UID && e.Reason == reason {
			n += max(1, int(e.Count))
			if e.Series != nil {
				n += int(e.Series.Count) - 1
			}
		}
	}
	return n, nil
}

func TestRequestedAddress(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		apply(t, pool("asked", lanRange(f, 155, 159)))
		want := strings.Split(lanRange(f, 157, 157), "-")[0]
		for _, annotation := range []string{"steelyard.io/loadBalancerIPs", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs"} {
			t.Run(annotation, func(t *testing.T) {
				s := create(t, lbService("asked", f, func(s *corev1.Service) { s.Annotations[annotation] = want }))
				if got := address(t, "asked"); got.String() != want {
					t.Errorf("got %s, asked for %s", got, want)
				}
				must(t, lab.Delete(t.Context(), s))
			})
		}
	})
}

func TestLoadBalancerClass(t *testing.T) {
	class := func(name string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.LoadBalancerClass = &name }
	}
	create(t, lbService("stranger", families[0], class("example.com/other")))
	create(t, lbService("ours", families[0], class(v1beta1.DefaultLoadBalancerClass)))
	address(t, "ours") // once this one is served, the other has been passed over
	var s corev1.Service
	must(t, lab.Get(t.Context(), key("default", "stranger"), &s))
	if len(s.Status.LoadBalancer.Ingress) > 0 || len(s.Status.Conditions) > 0 {
		t.Errorf("a Service of another class was touched: %+v", s.Status)
	}
}

func TestSamplesApply(t *testing.T) {
	samples, err := filepath.Glob("../config/samples/*.yaml")
	must(t, err)
	if len(samples) == 0 {
		t.Fatal("there are no samples in config/samples")
	}
	for _, sample := range samples {
		t.Run(filepath.Base(sample), func(t *testing.T) {
			text, err := os.ReadFile(sample)
			must(t, err)
			_, err = lab.Kubectl(t.Context(), "apply", "--dry-run=server", "-f", absolute(t, sample))
			must(t, err)
			if len(text) == 0 || text[0] != '#' {
				t.Error("a sample begins with a comment that says what it shows")
			}
		})
	}
}
