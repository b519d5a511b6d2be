package speaker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// world is a cluster of speakers in one process: a shared API, a network between them, and a LAN with a client.
type world struct {
	t        *testing.T
	hub      *hub
	lan      *lan
	reporter *fakeReporter
	running  map[string]*program // changed by the test only, with mu

	mu       sync.Mutex // complaints come from other goroutines
	config   *config.Config
	nodes    map[string]Node
	services map[string]Service
	serving  map[string][]string
	// lag is how late a speaker hears of a change in the API; cutOff speakers hear nothing.
	lag    func(node string) time.Duration
	cutOff map[string]bool
}

type program struct {
	speaker *Speaker
	layer2  *fakeLayer2
	gate    *fakeGate
	shown   *fakeShown
	stop    context.CancelFunc
	done    chan struct{}
}

// fakeShown is a Layer2Reporter that counts.
type fakeShown struct{ rechecks atomic.Int32 }

func (f *fakeShown) SetLayer2(string, *v1beta1.Layer2Announcement) {}
func (f *fakeShown) Bury([]string)                                 {}
func (f *fakeShown) Keep([]string)                                 {}
func (f *fakeShown) Recheck()                                      { f.rechecks.Add(1) }

// inWorld runs a test in a world with n nodes, under synctest's clock.
func inWorld(t *testing.T, n int, f func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, hub: newHub(), lan: newLAN(), running: map[string]*program{},
			nodes: map[string]Node{}, services: map[string]Service{}, serving: map[string][]string{},
			lag: func(string) time.Duration { return 0 }, cutOff: map[string]bool{},
		}
		w.reporter = &fakeReporter{conditions: map[string]string{}, changed: w.complained}
		w.config = &config.Config{
			Pools:            []*config.Pool{{Name: "pool", Ranges: ranges("10.0.0.0-10.0.255.255", "2001:db8::-2001:db8::ffff")}},
			L2Advertisements: []*config.L2Advertisement{{Name: "all", Pools: []string{"pool"}}},
		}
		for i := range n {
			w.setNode(Node{Name: nodeName(i), Labels: labels.Set{"name": nodeName(i)}})
		}
		for i := range n {
			w.start(nodeName(i))
		}
		time.Sleep(200 * time.Millisecond)
		defer func() {
			for _, name := range slices.Sorted(maps.Keys(w.running)) {
				w.powerOff(name)
			}
			// Let what was under way run out, so that no goroutine is left.
			time.Sleep(time.Minute)
		}()
		f(t, w)
	})
}

func nodeName(i int) string { return fmt.Sprintf("node-%c", 'a'+i) }

func ranges(texts ...string) []config.Range {
	var all []config.Range
	for _, text := range texts {
		r, err := config.ParseRange(text)
		if err != nil {
			panic(err)
		}
		all = append(all, r)
	}
	return all
}

func (w *world) log(node string) *slog.Logger {
	if os.Getenv("SPEAKER_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", node)
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// start starts a node's speaker; it hears of everything in the API a moment later.
func (w *world) start(name string) *program {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, name[len(name)-1]}
	synced := make(chan struct{})
	l2 := w.lan.attach(name, mac)
	gate := &fakeGate{changed: make(chan struct{}, 1)}
	shown := &fakeShown{}
	s := New(Config{Node: name, Layer2: l2, Dataplane: gate, Reporter: w.reporter, Shown: shown, Synced: synced, Log: w.log(name)})
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{speaker: s, layer2: l2, gate: gate, shown: shown, stop: cancel, done: make(chan struct{})}
	w.mu.Lock()
	w.running[name] = p
	w.mu.Unlock()
	members := w.hub.join(name, mac, s.Replica())
	go func() {
		defer close(p.done)
		if err := s.Run(ctx, members); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	}()
	if w.cutOff[name] {
		return p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	config, nodes, services, serving := w.config, maps.Clone(w.nodes), maps.Clone(w.services), maps.Clone(w.serving)
	time.AfterFunc(30*time.Millisecond, func() {
		for _, n := range nodes {
			s.SetNode(n)
		}
		for _, svc := range services {
			s.SetService(svc)
		}
		for name, nodes := range serving {
			s.SetEndpoints(name+"-1", Endpoints{Service: name, Serving: nodes})
		}
		s.SetConfig(config)
		close(synced)
	})
	return p
}

// kill ends a speaker without a word: SIGKILL. The node goes on.
func (w *world) kill(name string) {
	p := w.running[name]
	w.mu.Lock()
	delete(w.running, name)
	w.mu.Unlock()
	w.lan.mu.Lock()
	p.layer2.dead = true
	for a := range p.layer2.vips {
		w.lan.note(a)
	}
	w.lan.mu.Unlock()
	w.hub.mu.Lock()
	if m := w.hub.nodes[name]; m != nil {
		m.down = true
	}
	w.hub.mu.Unlock()
	p.stop()
}

// forget drops a speaker that has stopped by itself.
func (w *world) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, name)
}

// powerOff takes a node off all networks.
func (w *world) powerOff(name string) {
	w.hub.die(name)
	w.kill(name)
}

func (w *world) each(f func(*Speaker)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, p := range w.running {
		if !w.cutOff[name] {
			time.AfterFunc(w.lag(name), func() { f(p.speaker) })
		}
	}
}

func (w *world) setNode(n Node) {
	w.nodes[n.Name] = n
	w.each(func(s *Speaker) { s.SetNode(n) })
}

func (w *world) setConfig(change func(*config.Config)) {
	c := *w.config
	change(&c)
	w.config = &c
	w.each(func(s *Speaker) { s.SetConfig(&c) })
}

// serve creates or changes a Service, with endpoints on these nodes.
func (w *world) serve(svc Service, nodes ...string) {
	w.mu.Lock()
	w.services[svc.Name], w.serving[svc.Name] = svc, nodes
	w.mu.Unlock()
	w.each(func(s *Speaker) {
		s.SetEndpoints(svc.Name+"-1", Endpoints{Service: svc.Name, Serving: nodes})
		s.SetService(svc)
	})
}

func (w *world) delete(name string) {
	w.mu.Lock()
	delete(w.services, name)
	w.mu.Unlock()
	w.each(func(s *Speaker) { s.DeleteService(name) })
}

func (w *world) complained(name string, reason announce.Reason, message string) {
	w.mu.Lock()
	svc, ok := w.services[name]
	if svc.Complaint, svc.ComplaintReason = message, reason; ok {
		w.services[name] = svc
	}
	w.mu.Unlock()
	if !ok {
		return
	}
	w.each(func(s *Speaker) { s.SetService(svc) })
}

// complaint returns the Service's condition.
func (w *world) complaint(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.services[name].Complaint
}

// servicesWithAddresses creates n Services with one address each.
func (w *world) servicesWithAddresses(n int) []netip.Addr {
	var addrs []netip.Addr
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		addrs = append(addrs, a)
		w.serve(Service{Name: fmt.Sprint("default/svc-", i), Addrs: []netip.Addr{a}}, nodeName(0))
	}
	return addrs
}

// owners returns who answers for the address.
func (w *world) owners(a netip.Addr) []string {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	return w.lan.answering(a)
}

// owner returns the one node that answers for the address.
func (w *world) owner(a netip.Addr) string {
	w.t.Helper()
	owners := w.owners(a)
	if len(owners) != 1 {
		w.t.Fatalf("%v is answered by %v, want one node", a, owners)
	}
	return owners[0]
}

func (w *world) allOwners(addrs []netip.Addr) map[netip.Addr]string {
	w.t.Helper()
	owners := map[netip.Addr]string{}
	for _, a := range addrs {
		owners[a] = w.owner(a)
	}
	return owners
}

// neighbour returns where the client sends its packets for the address.
func (w *world) neighbour(a netip.Addr) string {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	return w.lan.neighbour[a]
}

func (w *world) bursts(a netip.Addr) int {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	return w.lan.bursts[a]
}

// gap returns the longest time since `from` in which nobody answered for the address.
func (w *world) gap(a netip.Addr, from time.Time) time.Duration {
	w.lan.mu.Lock()
	defer w.lan.mu.Unlock()
	var longest time.Duration
	var empty time.Time
	close := func(at time.Time) {
		if !empty.IsZero() {
			longest = max(longest, at.Sub(empty))
		}
	}
	for _, m := range w.lan.history {
		if m.addr != a || m.at.Before(from) {
			continue
		}
		close(m.at)
		empty = time.Time{}
		if len(m.by) == 0 {
			empty = m.at
		}
	}
	close(time.Now())
	return longest
}

func (w *world) loads(addrs []netip.Addr) map[string]int {
	loads := map[string]int{}
	for name := range w.running {
		loads[name] = 0
	}
	for _, owner := range w.allOwners(addrs) {
		loads[owner]++
	}
	return loads
}

// claims returns what the node's speaker would tell the others, by address.
func (w *world) claims(name string) map[netip.Addr]announce.Claim {
	claims, _, err := announce.Decode(w.running[name].speaker.Replica().State())
	if err != nil {
		w.t.Fatal(err)
	}
	byAddr := map[netip.Addr]announce.Claim{}
	for _, c := range claims {
		byAddr[c.Addr] = c
	}
	return byAddr
}
