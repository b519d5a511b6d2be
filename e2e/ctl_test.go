package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// ctl runs steelyardctl, which has to end with this exit code.
func ctl(t *testing.T, code int, args ...string) fixture.Output {
	t.Helper()
	out, err := lab.Ctl(t.Context(), args...)
	must(t, err)
	if out.Code != code {
		t.Fatalf("steelyardctl %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), out.Code, code, out.Stdout, out.Stderr)
	}
	return out
}

// explained waits until the explanation of a Service has all of these texts.
func explained(t *testing.T, name string, code int, texts ...string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "the explanation of "+name, func(ctx context.Context) error {
		out, err := lab.Ctl(ctx, "explain", "service", name)
		if err != nil {
			return err
		}
		for _, text := range texts {
			if !strings.Contains(out.Stdout, text) {
				return fmt.Errorf("%q is not in it: %s%s", text, out.Stdout, out.Stderr)
			}
		}
		if out.Code != code {
			return fmt.Errorf("it ended with %d, want %d: %s%s", out.Code, code, out.Stdout, out.Stderr)
		}
		return nil
	}))
}

func TestExplain(t *testing.T) {
	f := families[0]
	create(t, lbService("explained", f))
	addr := address(t, "explained")
	node := owner(t, addr)
	explained(t, "explained", 0, addr.String(), "pool lan", node, "3 of 3")

	create(t, lbService("lost", f, fromPool("nowhere")))
	waits(t, "lost", "UnknownPool")
	explained(t, "lost", 2, "nowhere")
	if out := ctl(t, 2, "status"); !strings.Contains(out.Stdout, "default/lost") {
		t.Errorf("the status does not name the Service that waits: %s", out.Stdout)
	}
	must(t, lab.Delete(t.Context(), lbService("lost", f)))

	create(t, lbService("headless-chicken", f, selecting("nobody")))
	address(t, "headless-chicken")
	explained(t, "headless-chicken", 2, "endpoint")
	condition(t, "headless-chicken", v1beta1.ConditionAnnounced, metav1.ConditionFalse, "NoServingEndpoint")
	update(t, "headless-chicken", selecting("echo"))
	owner(t, address(t, "headless-chicken"))
	explained(t, "headless-chicken", 0)

	must(t, lab.WaitFor(t.Context(), "a status without fault", func(ctx context.Context) error {
		out, err := lab.Ctl(ctx, "status")
		if err != nil || out.Code != 0 || !strings.Contains(out.Stdout, "node-3") {
			return fmt.Errorf("%v, it ended with %d: %s%s", err, out.Code, out.Stdout, out.Stderr)
		}
		return nil
	}))
	if out := ctl(t, 0, "pools", "--services"); !strings.Contains(out.Stdout, "default/explained") {
		t.Errorf("the pools don't tell who has an address: %s", out.Stdout)
	}
}

// manifest writes a file for steelyardctl.
func manifest(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

// TestPlan: what the plan says is what then happens.
func TestPlan(t *testing.T) {
	f := families[0]
	apply(t, pool("planned", "198.18.10.0/30"))
	before := map[string]netip.Addr{}
	for _, name := range []string{"plan-a", "plan-b", "plan-c"} {
		create(t, lbService(name, f, fromPool("planned")))
		before[name] = address(t, name)
	}
	smaller := pool("planned", "198.18.10.1-198.18.10.2")
	file := manifest(t, smaller)
	out := ctl(t, 3, "plan", "-f", file, "-o", "json")
	var plan struct {
		Services []struct {
			Namespace, Name string
			From, To        []string
		}
	}
	if err := json.Unmarshal([]byte(out.Stdout), &plan); err != nil {
		t.Fatalf("%v in %s", err, out.Stdout)
	}
	said := map[string][]string{}
	for _, s := range plan.Services {
		said[s.Name] = s.To
	}
	if same := ctl(t, 0, "plan", "-f", manifest(t, pool("planned", "198.18.10.0/29"))); !strings.Contains(same.Stdout, "keep") {
		t.Errorf("of a wider pool, the plan says: %s", same.Stdout)
	}

	must(t, lab.Apply(t.Context(), smaller))
	waiting := 0
	for name := range before {
		want, told := said[name]
		if !told {
			want = []string{before[name].String()}
		}
		if len(want) == 0 {
			waiting++
		}
		must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s to have %v, as planned", name, want), func(ctx context.Context) error {
			got, err := lab.Addresses(ctx, name)
			if err != nil {
				return err
			}
			var texts []string
			for _, a := range got {
				texts = append(texts, a.String())
			}
			if !slices.Equal(texts, want) {
				return fmt.Errorf("it has %v", texts)
			}
			return nil
		}))
	}
	if waiting != 1 {
		t.Errorf("%d Services wait for one of 2 addresses, want 1 of 3: %s", waiting, out.Stdout)
	}
}

// TestMigration: a cluster that had MetalLB keeps every address.
func TestMigration(t *testing.T) {
	scale := func(replicas int) {
		t.Helper()
		_, err := lab.Kubectl(t.Context(), "scale", "-n", fixture.Namespace, "deployment/steelyard-controller", fmt.Sprintf("--replicas=%d", replicas))
		must(t, err)
		_, err = lab.Kubectl(t.Context(), "rollout", "status", "-n", fixture.Namespace, "deployment/steelyard-controller", "--timeout=60s")
		must(t, err)
		must(t, lab.WaitFor(t.Context(), "controllers to come or go", func(ctx context.Context) error {
			var pods corev1.PodList
			if err := lab.List(ctx, &pods, client.InNamespace(fixture.Namespace), client.MatchingLabels{"app.kubernetes.io/component": "controller"}); err != nil || len(pods.Items) != replicas {
				return fmt.Errorf("there are %d: %v", len(pods.Items), err)
			}
			return nil
		}))
	}
	defer scale(2)
	scale(0)
	v4, v6 := families[0], families[1]
	metallb := func(key, value string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations["metallb.io/"+key] = value }
	}
	had := map[string][]string{}
	for _, s := range []struct {
		service   *corev1.Service
		addresses []string
	}{
		{lbService("mig-plain", v4), []string{"198.18.9.7"}},
		{lbService("mig-six", v6), []string{"2001:db8:18:9::42"}},
		{lbService("mig-dual", v4, dualStack), []string{"198.18.9.3", "2001:db8:18:9::3"}},
		{lbService("mig-pool", v4, metallb("address-pool", "precious")), []string{"198.18.9.202"}},
		{lbService("mig-asked", v4, metallb("loadBalancerIPs", "198.18.9.12")), []string{"198.18.9.12"}},
		{lbService("mig-tcp", v4, onPort(corev1.ProtocolTCP, 7000), metallb("allow-shared-ip", "both")), []string{"198.18.9.9"}},
		{lbService("mig-udp", v4, onPort(corev1.ProtocolUDP, 7000), metallb("allow-shared-ip", "both")), []string{"198.18.9.9"}},
	} {
		create(t, s.service)
		for _, a := range s.addresses {
			s.service.Status.LoadBalancer.Ingress = append(s.service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
		}
		must(t, lab.Status().Update(t.Context(), s.service))
		had[s.service.Name] = s.addresses
	}

	out := ctl(t, 0, "migrate", "-f", absolute(t, "testdata/metallb.yaml"))
	// The peer is not there, so that this is about addresses; the plan is asked before anything is applied.
	ctl(t, 0, "plan", "-f", manifest(t, out.Stdout)) // nothing moves or is lost
	must(t, lab.Apply(t.Context(), out.Stdout))
	t.Cleanup(func() { must(t, lab.Remove(context.Background(), out.Stdout)) })
	scale(2)
	for name, want := range had {
		condition(t, name, v1beta1.ConditionAddressAssigned, metav1.ConditionTrue, "Assigned")
		var s corev1.Service
		must(t, lab.Get(t.Context(), key("default", name), &s))
		var got []string
		for _, i := range s.Status.LoadBalancer.Ingress {
			got = append(got, i.IP)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s had %v and has %v", name, want, got)
		}
		if n, err := events(t.Context(), name, "Assigned"); err != nil || n > 0 {
			t.Errorf("%s was told of %d changes, %v", name, n, err)
		}
	}
	reach(t, lab.Host("node-1"), "udp", netip.MustParseAddr("198.18.9.9"))
	explained(t, "mig-plain", 0, "198.18.9.7", "production")
}
