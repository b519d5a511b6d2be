// Package e2e holds the scenarios that run in the lab: the whole product, installed by its chart, in a real cluster.
package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
)

// lab is the cluster that all scenarios of this package share; each makes and removes its own Services and pools.
var lab *fixture.Cluster

// basics is what every scenario finds: a pool of the client's LAN, announced on it.
const basics = `
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: lan}
spec: {addresses: [192.0.2.100-192.0.2.119, 2001:db8:1::100-2001:db8:1::119]}
---
apiVersion: steelyard.io/v1beta1
kind: L2Advertisement
metadata: {name: lan}
spec: {ipAddressPools: [lan]}
`

func TestMain(m *testing.M) {
	cluster.Supervise()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	code, err := run(ctx, m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	l, err := cluster.Up(ctx, cluster.Options{Name: fmt.Sprintf("e2e-%d", os.Getpid()), Nodes: 3})
	if err != nil {
		return 1, err
	}
	defer func() {
		if downErr := l.Down(); err == nil {
			err = downErr
		}
	}()
	if lab, err = fixture.New(l); err != nil {
		return 1, err
	}
	if err := lab.Install(ctx); err != nil {
		return 1, fmt.Errorf("%w\n%s", err, diagnosis(ctx))
	}
	if err := lab.Apply(ctx, basics); err != nil {
		return 1, err
	}
	if err := lab.Echo(ctx, "echo", ""); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// diagnosis is what a person would look at first when a scenario fails.
func diagnosis(ctx context.Context) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "pods,services,nodes", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", fixture.Namespace, "-l", "app.kubernetes.io/component=controller", "--tail=20", "--prefix"},
		{"logs", "-n", fixture.Namespace, "-l", "app.kubernetes.io/component=speaker", "--tail=25", "--prefix"},
	} {
		out, err := lab.Kubectl(ctx, args...)
		if err != nil {
			out = err.Error()
		}
		lines := strings.Split(out, "\n")
		if len(lines) > 100 {
			lines = lines[len(lines)-100:]
		}
		fmt.Fprintf(&b, "--- kubectl %s\n%s\n", strings.Join(args, " "), strings.Join(lines, "\n"))
	}
	return b.String()
}

// must ends the scenario with a diagnosis if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Log(diagnosis(context.Background()))
		t.Fatal(err)
	}
}

// family is one of the two that most scenarios run in.
type family struct {
	name string
	core corev1.IPFamily
	is   func(netip.Addr) bool
}

var families = []family{
	{"IPv4", corev1.IPv4Protocol, netip.Addr.Is4},
	{"IPv6", corev1.IPv6Protocol, netip.Addr.Is6},
}

// eachFamily runs a scenario once per IP family.
func eachFamily(t *testing.T, scenario func(t *testing.T, f family)) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) { scenario(t, f) })
	}
}

// lbService is a load-balancer Service of the echo workload with TCP and UDP on port 7000, changed by mutate.
func lbService(name string, f family, mutate ...func(*corev1.Service)) *corev1.Service {
	single := corev1.IPFamilyPolicySingleStack
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeLoadBalancer,
			IPFamilies:     []corev1.IPFamily{f.core},
			IPFamilyPolicy: &single,
			Selector:       map[string]string{"app": "echo"},
			Ports: []corev1.ServicePort{
				{Name: "tcp", Port: 7000, TargetPort: intstr.FromInt32(7000), Protocol: corev1.ProtocolTCP},
				{Name: "udp", Port: 7000, TargetPort: intstr.FromInt32(7000), Protocol: corev1.ProtocolUDP},
			},
		},
	}
	for _, m := range mutate {
		m(s)
	}
	return s
}

func fromPool(pool string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations["steelyard.io/address-pool"] = pool }
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func selecting(app string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": app} }
}

func dualStack(s *corev1.Service) {
	require := corev1.IPFamilyPolicyRequireDualStack
	s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &require, nil
}

// create makes an object that goes away with the scenario.
func create[T client.Object](t *testing.T, obj T) T {
	t.Helper()
	must(t, lab.Create(t.Context(), obj))
	t.Cleanup(func() {
		if err := lab.Delete(context.Background(), obj); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	return obj
}

// apply applies manifests that go away with the scenario.
func apply(t *testing.T, manifests string) {
	t.Helper()
	must(t, lab.Apply(t.Context(), manifests))
	t.Cleanup(func() {
		if err := lab.Remove(context.Background(), manifests); err != nil {
			t.Error(err)
		}
	})
}

// update changes a Service, again after a conflict.
func update(t *testing.T, name string, change func(*corev1.Service)) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "the update of "+name, func(ctx context.Context) error {
		var s corev1.Service
		if err := lab.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, &s); err != nil {
			return err
		}
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		change(&s)
		return lab.Update(ctx, &s)
	}))
}

// address waits for the only address of a Service.
func address(t *testing.T, name string) netip.Addr {
	t.Helper()
	addrs, err := lab.AwaitAddresses(t.Context(), name, 1)
	must(t, err)
	return addrs[0]
}

// owner waits until exactly one node answers for an address.
func owner(t *testing.T, addr netip.Addr) string {
	t.Helper()
	node, err := lab.AwaitOwner(t.Context(), addr, nil)
	must(t, err)
	return node
}

// ownerAmong waits until exactly one node answers, and it is one of these.
func ownerAmong(t *testing.T, addr netip.Addr, nodes ...string) string {
	t.Helper()
	node, err := lab.AwaitOwner(t.Context(), addr, func(n string) bool { return slices.Contains(nodes, n) })
	must(t, err)
	return node
}

func others(node string) []string {
	return slices.DeleteFunc([]string{"node-1", "node-2", "node-3"}, func(n string) bool { return n == node })
}

// port7000 is where the echo Services listen.
func port7000(addr netip.Addr) string { return net.JoinHostPort(addr.String(), "7000") }

// reach waits until a Service answers from a host, and returns the answer.
func reach(t *testing.T, from host.Host, network string, addr netip.Addr) (answer traffic.Answer) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s %s to answer %s", network, addr, from.Name), func(ctx context.Context) (err error) {
		answer, err = traffic.Ask(ctx, from, network, port7000(addr), time.Second)
		return err
	}))
	return answer
}

// carriedEverywhere waits until every node has rules for the addresses, and so may announce them.
func carriedEverywhere(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	must(t, lab.Carried(t.Context(), addrs...))
}

// condition waits until a Service's condition has this status and reason, and returns its message.
func condition(t *testing.T, name, kind string, status metav1.ConditionStatus, reason string) (message string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s of %s to be %s for %s", kind, name, status, reason), func(ctx context.Context) error {
		var s corev1.Service
		if err := lab.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, &s); err != nil {
			return err
		}
		for _, c := range s.Status.Conditions {
			if c.Type == kind {
				if c.Status == status && c.Reason == reason {
					message = c.Message
					return nil
				}
				return fmt.Errorf("it is %s for %s: %s", c.Status, c.Reason, c.Message)
			}
		}
		return fmt.Errorf("it has no such condition")
	}))
	return message
}

func clientHost() host.Host { return lab.Host(cluster.Client) }

func keyOf(o client.Object) client.ObjectKey { return client.ObjectKeyFromObject(o) }

func key(namespace, name string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: name}
}

// metric reads one series of a node's speaker, from the node itself, because its cable may be cut.
func metric(node, series string) (float64, error) {
	out, err := lab.Host(node).Run(context.Background(), "curl", "-sf", "-m", "2", "http://127.0.0.1:7472/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", node, series)
}

func metricAtLeast(node, series string, want int) error {
	got, err := metric(node, series)
	if err == nil && got < float64(want) {
		err = fmt.Errorf("%s of %s is %g, want at least %d", series, node, got, want)
	}
	return err
}

// metricStands succeeds once a counter has not moved for a second and a half.
func metricStands(node, series string) error {
	before, err := metric(node, series)
	if err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // longer than the longest pause within a burst
	after, err := metric(node, series)
	if err == nil && before != after {
		err = fmt.Errorf("%s went from %g to %g", series, before, after)
	}
	return err
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	must(t, err)
	return abs
}
