package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// leader is the pod that holds the controllers' lease now.
func leader(ctx context.Context) (string, error) {
	var leases coordinationv1.LeaseList
	if err := lab.List(ctx, &leases, client.InNamespace("steelyard-system")); err != nil {
		return "", err
	}
	for _, l := range leases.Items {
		if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "" {
			continue
		}
		// The identity is the pod's name with something unique behind it.
		var pods corev1.PodList
		if err := lab.List(ctx, &pods, client.InNamespace("steelyard-system")); err != nil {
			return "", err
		}
		for _, p := range pods.Items {
			if len(*l.Spec.HolderIdentity) >= len(p.Name) && (*l.Spec.HolderIdentity)[:len(p.Name)] == p.Name {
				return p.Name, nil
			}
		}
		return "", fmt.Errorf("lease %s is held by %s, which is no pod", l.Name, *l.Spec.HolderIdentity)
	}
	return "", fmt.Errorf("no controller leads")
}

func awaitLeader(t *testing.T, other string) (pod string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "a leader", func(ctx context.Context) (err error) {
		if pod, err = leader(ctx); err == nil && pod == other {
			err = fmt.Errorf("%s still leads", pod)
		}
		return err
	}))
	return pod
}

func TestKilledLeaderIsReplaced(t *testing.T) {
	first := awaitLeader(t, "")
	must(t, host.KillPod(first, "controller", syscall.SIGKILL))
	killed := time.Now()
	create(t, lbService("successor", families[0]))
	address(t, "successor")
	elapsed := time.Since(killed)
	t.Logf("a Service created as the leader was killed had its address after %d ms", elapsed.Milliseconds())
	if elapsed > 10*time.Second {
		t.Errorf("it took %s to replace the leader", elapsed)
	}
}

func TestControllerKilledDuringBurst(t *testing.T) {
	apply(t, `
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: burst}
spec: {autoAssign: false, addresses: [198.18.0.0/24, "2001:db8:f::/64"]}
`)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		mu   sync.Mutex
		seen = map[string]string{} // Service -> the addresses it was first seen with
		errs []error
	)
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	watch := func() error {
		var list corev1.ServiceList
		if err := lab.List(ctx, &list, client.InNamespace("default"), client.MatchingLabels{"burst": "yes"}); err != nil {
			return err
		}
		holders := map[string]string{}
		mu.Lock()
		defer mu.Unlock()
		for _, s := range list.Items {
			var text string
			for _, i := range s.Status.LoadBalancer.Ingress {
				if other, doubled := holders[i.IP]; doubled {
					errs = append(errs, fmt.Errorf("%s is held by %s and %s", i.IP, other, s.Name))
				}
				holders[i.IP] = s.Name
				text += i.IP + " "
			}
			id := s.Name + "/" + string(s.UID)
			if before := seen[id]; before != "" && before != text {
				errs = append(errs, fmt.Errorf("%s moved from %s to %s", s.Name, before, text))
			}
			if text != "" {
				seen[id] = text
			}
		}
		return nil
	}
	var all sync.WaitGroup
	var created, left int // once creating is done
	enough := make(chan struct{})
	creating := make(chan struct{})
	burst := func(s *corev1.Service) {
		s.Labels = map[string]string{"burst": "yes"}
		s.Spec.AllocateLoadBalancerNodePorts = new(bool)
	}
	all.Go(func() { // creations, and every third Service goes away again
		defer close(creating)
		for ; ; created++ {
			f := families[created%2]
			s := lbService(fmt.Sprintf("burst-%d", created), f, fromPool("burst"), burst)
			if err := lab.Create(ctx, s); err != nil {
				note(err)
				return
			}
			left++
			if created%3 == 2 {
				gone := lbService(fmt.Sprintf("burst-%d", created-2), families[created%2])
				if err := lab.Delete(ctx, gone); err != nil {
					note(err)
				}
				left--
			}
			select {
			case <-time.After(400 * time.Millisecond):
			case <-enough:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			if err := watch(); err != nil && ctx.Err() == nil {
				note(err)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		if err := lab.DeleteAllOf(context.Background(), &corev1.Service{}, client.InNamespace("default"), client.MatchingLabels{"burst": "yes"}); err != nil {
			t.Error(err)
		}
	})
	assigned := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	kills := 0
	for kills < 20 {
		before := assigned()
		must(t, lab.WaitFor(t.Context(), "a leader to assign something", func(context.Context) error {
			if assigned() == before {
				return fmt.Errorf("%d Services were assigned, as before", before)
			}
			return nil
		}))
		var pods corev1.PodList
		must(t, lab.List(ctx, &pods, client.InNamespace("steelyard-system"), client.MatchingLabels{"app.kubernetes.io/component": "controller"}))
		for _, p := range pods.Items {
			if p.DeletionTimestamp != nil {
				continue
			}
			if err := host.KillPod(p.Name, "controller", syscall.SIGKILL); err != nil {
				continue // it is only just starting
			}
			kills++
			// A new pod starts at once; the killed one's container would wait for its back-off.
			must(t, client.IgnoreNotFound(lab.Delete(ctx, &p, client.GracePeriodSeconds(0))))
		}
	}
	close(enough)
	<-creating
	t.Logf("killed a controller %d times while %d Services were created", kills, created)
	must(t, lab.WaitFor(waitLong(t), "every Service to be assigned", func(ctx context.Context) error {
		var list corev1.ServiceList
		if err := lab.List(ctx, &list, client.InNamespace("default"), client.MatchingLabels{"burst": "yes"}); err != nil {
			return err
		}
		waiting := 0
		for _, s := range list.Items {
			if len(s.Status.LoadBalancer.Ingress) == 0 {
				waiting++
			}
		}
		if waiting > 0 || len(list.Items) != left {
			return fmt.Errorf("%d of %d Services wait", waiting, len(list.Items))
		}
		return nil
	}))
	must(t, watch())
	stop()
	all.Wait()
	for _, err := range errs {
		t.Error(err)
	}
	if len(seen) < left {
		t.Errorf("only %d Services were ever seen with an address", len(seen))
	}
	for id, text := range seen {
		if a, err := netip.ParseAddr(text[:len(text)-1]); err != nil || !a.IsValid() {
			t.Errorf("%s had %q", id, text)
		}
	}
	_, err := lab.Kubectl(t.Context(), "rollout", "status", "-n", "steelyard-system", "deployment/steelyard-controller", "--timeout=60s")
	must(t, err)
}

func waitLong(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestBadRequestsAreExplained(t *testing.T) {
	annotated := func(kv ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			for i := 0; i < len(kv); i += 2 {
				s.Annotations[kv[i]] = kv[i+1]
			}
		}
	}
	const (
		pool = "steelyard.io/address-pool"
		ips  = "steelyard.io/loadBalancerIPs"
	)
	taken := create(t, lbService("bad-holder", families[0], annotated(ips, "192.0.2.119")))
	address(t, taken.Name)
	cases := map[string]struct {
		change func(*corev1.Service)
		reason string
		names  string // the message must contain it
	}{
		"unknown pool":       {annotated(pool, "nowhere"), "UnknownPool", "nowhere"},
		"pool with capitals": {annotated(pool, "LAN Pool"), "InvalidRequest", "LAN Pool"},
		"no address":         {annotated(ips, "192.0.2.300"), "InvalidRequest", "192.0.2.300"},
		"two of one family":  {annotated(ips, "192.0.2.117,192.0.2.118"), "InvalidRequest", "192.0.2.118"},
		"wrong family":       {annotated(ips, "2001:db8:1::118"), "WrongFamily", "2001:db8:1::118"},
		"outside every pool": {annotated(ips, "192.0.2.250"), "OutsidePools", "192.0.2.250"},
		"taken":              {annotated(ips, "192.0.2.119"), "AddressTaken", "bad-holder"},
		"not in the pool":    {annotated(ips, "192.0.2.250", pool, "lan"), "OutsidePools", "192.0.2.250"},
	}
	i := 0
	for name, c := range cases {
		i++
		service := fmt.Sprintf("bad-%d", i)
		t.Run(name, func(t *testing.T) {
			create(t, lbService(service, families[0], c.change))
			message := condition(t, service, v1beta1.ConditionAddressAssigned, metav1.ConditionFalse, c.reason)
			if !strings.Contains(message, c.names) {
				t.Errorf("the message does not name %s: %s", c.names, message)
			}
			t.Log(message)
			// Mended, it is served.
			update(t, service, func(s *corev1.Service) { s.Annotations = nil })
			address(t, service)
		})
	}
}
