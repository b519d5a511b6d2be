package engine

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/conntrack"
	"github.com/steelyard-lb/steelyard/pkg/dataplane/monitor"
)

// memory is a Backend whose kernel is a map.
type memory struct {
	mu      sync.Mutex
	rules   map[string][]*dataplane.Port // nil: none at all
	syncs   []call
	removed int
	fail    error
	takes   time.Duration
}

type call struct {
	at   time.Time
	what string // the Services that changed, or "full"
}

func (m *memory) Sync(_ context.Context, model *dataplane.Model, changed []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	what := strings.Join(changed, " ")
	if changed == nil {
		what = "full"
	}
	m.syncs = append(m.syncs, call{time.Now(), what})
	time.Sleep(m.takes)
	if m.fail != nil {
		return m.fail
	}
	if changed == nil {
		m.rules = maps.Clone(model.Ports)
	}
	for _, service := range changed {
		m.rules[service] = model.Ports[service]
		if len(m.rules[service]) == 0 {
			delete(m.rules, service)
		}
	}
	return nil
}

func (m *memory) Intact(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rules == nil {
		return errors.New("the rules are gone")
	}
	return nil
}

func (m *memory) Remove(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.rules = nil
	m.removed++
	return nil
}

// destroy takes the rules away as somebody else would.
func (m *memory) destroy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = nil
}

func (m *memory) breakDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) services() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.rules))
}

// calls returns what was synced since the last call.
func (m *memory) calls() (what []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.syncs {
		what = append(what, c.what)
	}
	m.syncs = nil
	return what
}

// node is an engine that runs, in a bubble.
type node struct {
	*Engine
	t       *testing.T
	kernel  *memory
	metrics *prometheus.Registry
	addrs   chan []netip.Addr
	changes chan monitor.Change
	events  []string // guarded by mu
	cleaned []*conntrack.Services
	noClean error
	mu      sync.Mutex
}

// run runs an engine in a bubble, and test beside it.
func run(t *testing.T, mode dataplane.Mode, test func(n *node)) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, kernel: &memory{}, metrics: prometheus.NewRegistry(), addrs: make(chan []netip.Addr, 1), changes: make(chan monitor.Change)}
		n.Engine = New(Options{
			Config:      dataplane.Config{Mode: mode, Node: "n1"},
			Backend:     n.kernel,
			BackendName: "nftables",
			Log:         slog.New(slog.NewTextHandler(t.Output(), nil)),
			Registerer:  n.metrics,
			Changes:     n.changes,
			Events: func(service, reason, _ string) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.events = append(n.events, service+" "+reason)
			},
		})
		n.Engine.kernel.watch = func(context.Context, *slog.Logger) <-chan []netip.Addr { return n.addrs }
		n.Engine.kernel.tune = func() error { return nil }
		n.Engine.kernel.clean = func(s *conntrack.Services, _ func(netip.Addr) bool) (int, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.noClean == nil {
				n.cleaned = append(n.cleaned, s)
			}
			return 0, n.noClean
		}
		n.addrs <- []netip.Addr{addr("192.0.2.1")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		test(n)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// settle waits until the engine has nothing to do at this moment.
func (n *node) settle() { synctest.Wait() }

func (n *node) expect(what ...string) {
	n.t.Helper()
	n.settle()
	if got := n.kernel.calls(); !slices.Equal(got, what) {
		n.t.Errorf("syncs: got %q, want %q", got, what)
	}
}

func (n *node) expectCarries(ip string, want bool) {
	n.t.Helper()
	n.settle()
	if got := n.Carries(addr(ip)); got != want {
		n.t.Errorf("Carries(%s) = %t", ip, got)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// service is a Service with the load-balancer addresses, a port for TCP, and one for UDP where the name begins with "udp".
func service(name, clusterIP string, ingress ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}
	protocol := corev1.ProtocolTCP
	if strings.HasPrefix(name, "udp") {
		protocol = corev1.ProtocolUDP
	}
	svc.Spec.Ports = []corev1.ServicePort{{Name: "port", Protocol: protocol, Port: 80}}
	for _, ip := range ingress {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	return svc
}

// slice is the EndpointSlice of a Service of the function above.
func slice(name string, endpoints ...string) *discoveryv1.EndpointSlice {
	protocol, portName, port := corev1.ProtocolTCP, "port", int32(8080)
	if strings.HasPrefix(name, "udp") {
		protocol = corev1.ProtocolUDP
	}
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Protocol: &protocol, Port: &port}},
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{e}})
	}
	return s
}

func (n *node) set(svc *corev1.Service) { n.SetService("default/"+svc.Name, svc) }

func (n *node) endpoints(name string, endpoints ...string) {
	n.SetSlice("default/"+name+"-1", slice(name, endpoints...))
}
