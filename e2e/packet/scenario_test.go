package packet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// scenario is one run of an entry of the table, in a world of its own, with one backend and one family.
type scenario struct {
	*testing.T
	*world
	settings
	v6       bool
	agents   map[string]*agent
	echoes   map[string]*echo
	services map[string]*corev1.Service
	slices   map[string]*discoveryv1.EndpointSlice
	machines map[string]*corev1.Node
	unsynced bool
}

func newScenario(t *testing.T, conf settings, v6 bool) *scenario {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	s := &scenario{
		T: t, world: w, settings: conf, v6: v6, agents: map[string]*agent{}, echoes: map[string]*echo{},
		services: map[string]*corev1.Service{}, slices: map[string]*discoveryv1.EndpointSlice{}, machines: map[string]*corev1.Node{},
	}
	for _, p := range pods {
		s.echo(p.name, 8080, 9090)
	}
	var traces []*trace
	for _, name := range append([]string{"cl", "rt"}, nodes...) {
		tr, err := startTrace(w.hosts[name])
		if err != nil {
			t.Fatal(err)
		}
		traces = append(traces, tr)
		t.Cleanup(func() { tr.file.Close() })
	}
	for _, name := range nodes {
		s.machines[name] = newNode(name)
	}
	var starting sync.WaitGroup
	var mu sync.Mutex
	for _, name := range nodes {
		starting.Go(func() {
			a, err := startAgent(w.hosts[name], s.agentSettings(name))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			s.agents[name] = a
		})
	}
	starting.Wait()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.dump(traces))
			for _, a := range s.agents {
				t.Logf("--- %s: log of the agent\n%s", a.node.name, a.logged())
			}
		}
		for _, a := range s.agents {
			_ = a.kill()
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	for _, name := range nodes {
		s.tell(name, order{Node: s.machines[name]})
	}
	if conf.Mode == "loadbalancer" {
		s.tellAll(order{Served: vips})
	}
	return s
}

// agentSettings are those of a node's agent.
func (s *scenario) agentSettings(node string) settings {
	conf := s.settings
	conf.Node = node
	conf.Healthz = netip.AddrPortFrom(netip.IPv6Unspecified(), 10256)
	return conf
}

// kill ends a node's agent as a crash does.
func (s *scenario) kill(node string) {
	s.Helper()
	s.must(s.agents[node].kill())
	delete(s.agents, node)
}

// restart starts a node's agent again after it was killed, and tells it everything that there is now.
func (s *scenario) restart(node string) {
	s.Helper()
	a, err := startAgent(s.hosts[node], s.agentSettings(node))
	if err != nil {
		s.Fatal(err)
	}
	s.agents[node] = a
	s.tell(node, order{Node: s.machines[node]})
	if s.Mode == "loadbalancer" {
		s.tell(node, order{Served: vips})
	}
	for _, svc := range s.services {
		s.tell(node, order{Key: key(svc), Service: svc})
	}
	for _, slice := range s.slices {
		s.tell(node, order{Key: key(slice), Slice: slice})
	}
}

func (s *scenario) tell(node string, o order) {
	s.Helper()
	s.unsynced = true
	if err := s.agents[node].order(o); err != nil {
		s.Fatal(err)
	}
}

func (s *scenario) tellAll(o order) {
	s.Helper()
	for _, node := range nodes {
		if a := s.agents[node]; a != nil {
			s.tell(node, o)
		}
	}
}

// sync waits until every agent has carried out what it was told.
func (s *scenario) sync() {
	s.Helper()
	if !s.unsynced {
		return
	}
	s.unsynced = false
	failed := make(chan error, len(s.agents))
	for _, a := range s.agents {
		go func() { failed <- a.sync() }()
	}
	for range s.agents {
		if err := <-failed; err != nil {
			s.Fatal(err)
		}
	}
}

// must ends the scenario if something failed that the product has no part in.
func (s *scenario) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// echo opens ports on a host.
func (s *scenario) echo(name string, ports ...uint16) {
	s.Helper()
	e, err := serve(s.hosts[name], ports...)
	if err != nil {
		s.Fatal(err)
	}
	s.echoes[name] = e
	s.Cleanup(e.close)
}

// Addresses of the scenario's family.

// vips are the networks that load-balancer addresses are from.
var vips = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:2::/64")}

func (s *scenario) addr(host string) netip.Addr { return places[host].in(s.v6) }

// vip is one of the addresses for load balancers; the router knows no way to it until via says one.
func (s *scenario) vip(n int) netip.Addr { return at("192.0.2.%d", "2001:db8:2::%d", n).in(s.v6) }

// text picks what belongs to the scenario's family.
func (s *scenario) text(v4, v6 string) string {
	if s.v6 {
		return v6
	}
	return v4
}

// via routes an address to a node, as an announcement would.
func (s *scenario) via(a netip.Addr, node string) {
	s.Helper()
	s.must(s.hosts["rt"].route(single(a), s.addr(node), ""))
}

// target is where a client goes.
type target struct {
	network string
	netip.AddrPort
}

func tcp(a netip.Addr, port uint16) target { return target{"tcp", netip.AddrPortFrom(a, port)} }

func udp(a netip.Addr, port uint16) target { return target{"udp", netip.AddrPortFrom(a, port)} }

func (t target) String() string { return t.network + "://" + t.AddrPort.String() }

// try makes one attempt from a host, after everything that was given is in force.
func (s *scenario) try(from string, to target, wait time.Duration) outcome {
	s.Helper()
	s.sync()
	return s.tryAs(from, netip.Addr{}, to, wait)
}

// tryAs is try with an address of the client's own choice.
func (s *scenario) tryAs(from string, as netip.Addr, to target, wait time.Duration) outcome {
	s.Helper()
	s.sync()
	if to.network == "udp" {
		return s.hosts[from].udp(port(as, 0), to.AddrPort, 1, wait)
	}
	return s.hosts[from].tcp(as, to.AddrPort, wait)
}

// serves checks that a client gets an answer of one of the servers, which sees an address of the host named saw ("" for any). It returns
// which server.
func (s *scenario) serves(from string, to target, saw string, by ...string) string {
	s.Helper()
	o := s.try(from, to, patience)
	if err := s.judge(o, saw, by...); err != nil {
		s.Errorf("%s to %s: %v", from, to, err)
	}
	return o.by
}

func (s *scenario) judge(o outcome, saw string, by ...string) error {
	want := "an answer of " + strings.Join(by, " or ")
	switch {
	case o.err != nil || !slices.Contains(by, o.by):
		return fmt.Errorf("want %s, got %s", want, o)
	case saw != "" && !s.hosts[saw].has(o.saw.Addr()):
		return fmt.Errorf("want %s to an address of %s, got %s", want, saw, o)
	}
	return nil
}

// refuses checks that a client is told at once that nobody serves.
func (s *scenario) refuses(from string, to target) {
	s.Helper()
	if o := s.try(from, to, patience); !o.refused() {
		s.Errorf("%s to %s: want a refusal, got %s", from, to, o)
	}
}

// silent checks that a client hears nothing at all.
func (s *scenario) silent(from string, to target) {
	s.Helper()
	s.silentAs(from, netip.Addr{}, to)
}

func (s *scenario) silentAs(from string, as netip.Addr, to target) {
	s.Helper()
	if o := s.tryAs(from, as, to, silence); !o.silent() {
		s.Errorf("%s %s to %s: want silence, got %s", from, as, to, o)
	}
}

// dead checks that a client gets no answer, whether it is told or not.
func (s *scenario) dead(from string, to target) {
	s.Helper()
	s.eventually(fmt.Sprintf("%s gets no answer from %s", from, to), func() error {
		if o := s.try(from, to, silence); o.err == nil {
			return fmt.Errorf("got %s", o)
		}
		return nil
	})
}

// spread makes connections and counts who answers.
func (s *scenario) spread(from string, to target, connections int) map[string]int {
	s.Helper()
	by := map[string]int{}
	for range connections {
		o := s.try(from, to, patience)
		if o.err != nil {
			s.Fatalf("%s to %s: %s", from, to, o)
		}
		by[o.by]++
	}
	return by
}

// eventually waits until f succeeds; how long it took is not judged, the machine may be busy.
func (s *scenario) eventually(what string, f func() error) {
	s.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	s.Fatalf("%s: not within %s: %v", what, patience, err)
}
