package controller

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

func TestLifeOfServices(t *testing.T) {
	c := newCluster(t, pool("prod", "192.0.2.0/31"))
	c.start(false)
	c.create(newService("a"))
	c.create(newService("b", annotated(v1beta1.AnnotationAddresses, "192.0.2.1")))
	c.has("a", "192.0.2.0 True Assigned")
	c.has("b", "192.0.2.1 True Assigned")
	c.eventually("counters", func() string { return c.poolStatus("prod") }, "2 0 0 0 True")

	c.create(newService("c"))
	c.has("c", "False PoolExhausted")
	c.delete(newService("a"))
	c.has("c", "192.0.2.0 True Assigned")
	c.eventually("events", func() string { return c.events("c") }, "Assigned PoolExhausted")

	c.create(newService("d"))
	c.has("d", "False PoolExhausted")
	c.change("b", ofType(corev1.ServiceTypeClusterIP))
	c.has("b", "")
	c.has("d", "192.0.2.1 True Assigned")

	c.change("d", annotated(v1beta1.AnnotationPool, "Prod"))
	c.has("d", "192.0.2.1 False InvalidRequest")
	c.create(newService("another class", ofClass("x/y"), withStatus("192.0.2.0")))
	c.has("another class", "192.0.2.0 without ipMode")
}

func TestPoolsComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.start(false)
	c.create(newService("a"))
	c.has("a", "False NoPools")
	older := pool("prod", "192.0.2.0/32")
	older.CreationTimestamp = metav1.NewTime(time.Now().Add(-time.Hour))
	c.create(older)
	c.has("a", "192.0.2.0 True Assigned")
	c.create(newService("b"))
	c.has("b", "False PoolExhausted")
	c.create(pool("more", "rubbish", "192.0.2.0/31"))
	c.has("b", "192.0.2.1 True Assigned")
	c.eventually("a fault", func() string { return c.poolStatus("more") }, "1 0 0 0 False")
	c.delete(pool("prod"))
	c.delete(pool("more"))
	c.has("a", "False NoPools")
	c.has("b", "False NoPools")
}

func TestNamespaceLabelsGainAndLoseAPool(t *testing.T) {
	gold := pool("gold", "192.0.2.0/31")
	gold.Spec.ServiceAllocation = &v1beta1.ServiceAllocation{NamespaceSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"tier": "gold"}}}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	c := newCluster(t, gold, namespace)
	c.start(false)
	c.create(newService("a"))
	c.has("a", "False NoPoolForService")
	namespace.Labels = map[string]string{"tier": "gold"}
	if err := c.Update(context.Background(), namespace); err != nil {
		t.Fatal(err)
	}
	c.has("a", "192.0.2.0 True Assigned")
}

// Two Services with one address, as an operator's mistake or a restored backup may leave them: the older keeps it.
func TestTwoClaimants(t *testing.T) {
	c := newCluster(t, pool("prod", "192.0.2.0/30"))
	young, old := newService("a-young", withStatus("192.0.2.0")), newService("b-old", withStatus("192.0.2.0"))
	old.CreationTimestamp = metav1.NewTime(time.Now().Add(-time.Hour))
	c.create(young)
	c.create(old)
	c.start(false)
	c.has("a-young", "192.0.2.1 True Assigned")
	c.has("b-old", "192.0.2.0 True Assigned")
	c.eventually("an event", func() string { return c.events("a-young") }, "Assigned")
}

func TestMemberlistSecret(t *testing.T) {
	c := newCluster(t)
	c.start(false)
	secret := &corev1.Secret{}
	c.eventually("the key", func() string {
		c.Get(context.Background(), client.ObjectKey{Namespace: "steelyard", Name: "steelyard-memberlist"}, secret)
		return fmt.Sprint(len(secret.Data["key"]))
	}, "32")
}

// A thousand Services at once: each has its own address after one write, and none waits for long.
func TestBurst(t *testing.T) {
	c := newCluster(t, pool("prod", "10.0.0.0/16"))
	r := c.start(false)
	c.create(newService("first"))
	c.has("first", "10.0.0.0 True Assigned")
	const n = 1000
	begin := time.Now()
	for i := range n {
		c.create(newService(fmt.Sprint("svc", i)))
	}
	created := time.Since(begin)
	var list corev1.ServiceList
	c.eventually("all addresses", func() string {
		if err := c.List(context.Background(), &list); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for i := range list.Items {
			for _, a := range assign.Addresses(&list.Items[i]) {
				seen[a.String()] = true
			}
		}
		return fmt.Sprint(len(seen))
	}, fmt.Sprint(n+1))
	t.Logf("created in %v, all had their addresses %v later", created, time.Since(begin)-created)
	// Who is looked at again before the cache shows the write may be refused another, which changes nothing.
	if want := fmt.Sprintf("steelyard_api_writes_total Service ok %d", n+1); !slices.Contains(measured(t, r.metrics), want) {
		t.Errorf("there is no %s in %q", want, measured(t, r.metrics))
	}
	if tries := c.api.times("patch services/status"); tries > n+n/100 {
		t.Errorf("%d attempts to write the statuses of %d Services", tries, n+1)
	}
}

// The controller is killed again and again while Services come and go: no address is doubled and none moves.
func TestKilledDuringABurst(t *testing.T) {
	c := newCluster(t, pool("prod", "10.0.0.0/25"))
	addressed := map[string]string{}
	look := func() {
		var list corev1.ServiceList
		if err := c.List(context.Background(), &list); err != nil {
			t.Fatal(err)
		}
		holders := map[string]string{}
		for i := range list.Items {
			svc := &list.Items[i]
			for _, a := range assign.Addresses(svc) {
				if other := holders[a.String()]; other != "" {
					t.Fatalf("%s and %s have %s", other, svc.Name, a)
				}
				holders[a.String()] = svc.Name
				if was := addressed[svc.Name]; was != "" && was != a.String() {
					t.Fatalf("%s moved from %s to %s", svc.Name, was, a)
				}
				addressed[svc.Name] = a.String()
			}
		}
	}
	next := 0
	for range 20 {
		r := c.start(false)
		for range 15 {
			c.create(newService(fmt.Sprint("svc", next)))
			if next >= 80 {
				c.delete(newService(fmt.Sprint("svc", next-80)))
			}
			next++
		}
		// In the midst of it: some of this round have their addresses.
		c.eventually("the first of the round", func() string {
			look()
			return fmt.Sprint(addressed[fmt.Sprint("svc", next-15)] != "")
		}, "true")
		r.kill()
		look()
	}
	c.start(false)
	for i := next - 80; i < next; i++ {
		c.eventually("the last ones", func() string { return fmt.Sprint(len(c.service(fmt.Sprint("svc", i)).Status.LoadBalancer.Ingress)) }, "1")
	}
	look()
}

func TestKilledLeaderIsReplaced(t *testing.T) {
	c := newCluster(t, pool("prod", "192.0.2.0/24"))
	leader := c.start(true)
	c.create(newService("a"))
	c.has("a", "192.0.2.0 True Assigned")
	standby := c.start(true)
	leader.kill()
	begin := time.Now()
	c.create(newService("b"))
	c.has("b", "192.0.2.1 True Assigned")
	if gap := time.Since(begin); gap > 5*time.Second {
		t.Errorf("replaced after %v", gap)
	}

	// A leader that stops on purpose does not make its successor wait for the lease to end.
	c.start(true)
	standby.stop()
	begin = time.Now()
	c.create(newService("c"))
	c.has("c", "192.0.2.2 True Assigned")
	if gap := time.Since(begin); gap > 2*time.Second {
		t.Errorf("succeeded after %v", gap)
	}
}

// What the controller does to the API server is what the chart allows it, and nothing else.
func TestVerbs(t *testing.T) {
	c := newCluster(t, append(bgpObjects(), pool("prod", "192.0.2.0/32", "198.51.100.0/31"), &v1beta1.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "ad"}})...)
	r := c.start(true)
	c.create(newService("kept", annotated(v1beta1.AnnotationKeep, "true"), annotated(v1beta1.AnnotationAddresses, "198.51.100.0")))
	c.reservation("kept", "198.51.100.0/32 Valid")
	c.change("kept", annotated(v1beta1.AnnotationAddresses, "198.51.100.1"))
	c.reservation("kept", "198.51.100.1/32 Valid")
	c.change("kept", annotated(v1beta1.AnnotationKeep, "false"))
	c.reservation("kept", "none")
	for _, name := range []string{"a", "b", "c"} {
		c.create(newService(name))
	}
	c.eventually("an event", func() string { return c.events("a") + c.events("b") + c.events("c") }, string(ipam.PoolExhausted))
	c.eventually("counters", func() string { return c.poolStatus("prod") }, "3 0 0 0 True")
	r.stop()
	user := []string{
		"create bfdprofiles", "create bgpadvertisements", "create bgppeers", "create communities", "create ipaddresspools", "create l2advertisements",
		"create services", "get addressreservations", "get ipaddresspools", "get services", "list events.events.k8s.io", "patch services",
	}
	want := []string{
		"create addressreservations", "create events", "create events.events.k8s.io", "create leases", "create secrets", "delete addressreservations",
		"get leases", "get secrets", "list addressreservations", "list bfdprofiles", "list bgpadvertisements", "list bgppeers", "list communities",
		"list ipaddresspools", "list l2advertisements", "list services",
		"patch addressreservations", "patch addressreservations/status", "patch bfdprofiles/status", "patch bgpadvertisements/status",
		"patch bgppeers/status", "patch communities/status", "patch ipaddresspools/status", "patch l2advertisements/status", "patch services/status",
		"update leases", "watch addressreservations", "watch bfdprofiles", "watch bgpadvertisements", "watch bgppeers", "watch communities",
		"watch ipaddresspools", "watch l2advertisements", "watch namespaces", "watch nodes", "watch secrets", "watch services",
	}
	got := slices.DeleteFunc(c.api.verbs(), func(v string) bool { return slices.Contains(user, v) })
	if !slices.Equal(got, want) {
		t.Errorf("used %q\nwant %q", got, want)
	}
}
