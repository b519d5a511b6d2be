package nftables

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// randomService makes ports of one Service, of both families, with anything that a Model can say.
func randomService(r *rand.Rand, i int) []*dataplane.Port {
	var ports []*dataplane.Port
	for port := range 1 + r.IntN(2) {
		for _, f := range []dataplane.Family{dataplane.IPv4, dataplane.IPv6} {
			addr := func(net, host int) netip.Addr {
				if f == dataplane.IPv6 {
					return netip.MustParseAddr(fmt.Sprintf("fd00:%d::%x", net, host+1))
				}
				return netip.AddrFrom4([4]byte{10, byte(net), byte(host >> 8), byte(host + 1)})
			}
			p := &dataplane.Port{
				Name:          dataplane.PortName{Service: serviceName(i), Port: fmt.Sprintf("p%d", port), Protocol: []dataplane.Protocol{dataplane.TCP, dataplane.UDP, dataplane.SCTP}[r.IntN(3)]},
				Family:        f,
				Frontends:     []dataplane.Frontend{{Kind: dataplane.ClusterIP, Addr: addr(96, i), Port: uint16(80 + port)}},
				InternalLocal: r.IntN(3) == 0, ExternalLocal: r.IntN(2) == 0,
			}
			if r.IntN(2) == 0 {
				p.Frontends = append(p.Frontends, dataplane.Frontend{Kind: dataplane.NodePort, Port: uint16(30000 + 10*i + port)},
					dataplane.Frontend{Kind: dataplane.LoadBalancerIP, Addr: addr(100, i), Port: uint16(80 + port)})
			}
			for range r.IntN(4) {
				// Pods that several Services have in common.
				e := dataplane.Endpoint{Addr: netip.AddrPortFrom(addr(244, r.IntN(6)), uint16(8000+r.IntN(2)))}
				e.Local = e.Addr.Addr().AsSlice()[len(e.Addr.Addr().AsSlice())-1]%2 == 0
				if slices.Contains(p.Cluster, e) {
					continue
				}
				p.Cluster = append(p.Cluster, e)
				if e.Local {
					p.Local = append(p.Local, e)
				}
			}
			if r.IntN(3) == 0 {
				p.Affinity = time.Duration(1+r.IntN(2)) * time.Hour
			}
			if r.IntN(3) == 0 {
				p.OwnSource = r.IntN(2) == 0
				for range 1 + r.IntN(3) {
					p.SourceRanges = append(p.SourceRanges, netip.PrefixFrom(addr(100+r.IntN(2), i), []int{8, 16, 24, 32}[r.IntN(4)]).Masked())
				}
			}
			ports = append(ports, p)
		}
	}
	return ports
}

func serviceName(i int) string { return fmt.Sprintf("default/s%d", i) }

// kernel returns everything in the tables, with ids left out: those depend on what was there before.
func kernel(t *testing.T, b *Backend) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, old := range b.tables {
		fresh := newTable(old.family, old.mode, old.host)
		k, err := fresh.read(b.conn)
		if err != nil || k == nil {
			t.Fatalf("table %s cannot be read back: %v", old, err)
		}
		for s, c := range k.elements {
			switch s.set {
			case setIDs, setNodePortIDs:
				c.value = ""
			case setChoices, setLocalChoices:
				s.key = "of " + c.comment + s.key[4:]
			case setMembers, setLocalMembers:
				s.key = "of " + c.comment + s.key[:len(s.key)-4]
			}
			out[fmt.Sprintf("%s %q %q", s.set, s.key, s.end)] += fmt.Sprintf("%q", c)
		}
	}
	return out
}

func compareKernels(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Errorf("%s: element %s is %s, want %s", what, k, got[k], want[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: element %s is left over", what, k)
		}
	}
}

// However the kernel got there, its rules are those of a node that just started.
func TestDifferencesEndWhereAFullLoadDoes(t *testing.T) {
	privateNet(t)
	r := rand.New(rand.NewPCG(1, 2))
	b := newBackend(t, dataplane.Full)
	m := &dataplane.Model{Host: dataplane.Host{PodInterfaces: "veth"}, Ports: map[string][]*dataplane.Port{}}
	sync := func(b *Backend, changed []string) {
		t.Helper()
		if err := b.Sync(t.Context(), m, changed); err != nil {
			t.Fatal(err)
		}
	}
	sync(b, nil)
	for step := range 60 {
		var changed []string
		for range 1 + r.IntN(4) {
			i := r.IntN(12)
			if changed = append(changed, serviceName(i)); r.IntN(4) == 0 {
				delete(m.Ports, serviceName(i))
			} else {
				m.Ports[serviceName(i)] = randomService(r, i)
			}
		}
		slices.Sort(changed)
		changed = slices.Compact(changed)
		switch r.IntN(6) {
		case 0: // another process takes over
			b = newBackend(t, dataplane.Full)
			sync(b, nil)
		case 1:
			m.Host.NodePortAddrs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(step)})}
			sync(b, changed)
		default:
			sync(b, changed)
		}
		if err := b.Intact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := kernel(t, b)
	if err := b.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := nftCommand(t, "list", "ruleset"); left != "" {
		t.Errorf("left over:\n%s", left)
	}
	fresh := newBackend(t, dataplane.Full)
	sync(fresh, nil)
	compareKernels(t, "after 60 changes", got, kernel(t, fresh))
}

// web is a Service that uses most of what there is.
func web() *dataplane.Port {
	return &dataplane.Port{
		Name: dataplane.PortName{Service: "default/web", Port: "http", Protocol: dataplane.TCP}, Family: dataplane.IPv4,
		Frontends: []dataplane.Frontend{
			{Kind: dataplane.ClusterIP, Addr: netip.MustParseAddr("10.96.0.10"), Port: 80},
			{Kind: dataplane.NodePort, Port: 30080},
			{Kind: dataplane.LoadBalancerIP, Addr: netip.MustParseAddr("192.0.2.1"), Port: 80},
		},
		Cluster: []dataplane.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.2:8080"), Local: true},
			{Addr: netip.MustParseAddrPort("10.244.2.2:8080")}},
		Local:         []dataplane.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.2:8080"), Local: true}},
		ExternalLocal: true, Affinity: 3 * time.Hour,
		SourceRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}
}

func webModel() *dataplane.Model {
	return &dataplane.Model{Host: dataplane.Host{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
		Ports: map[string][]*dataplane.Port{"default/web": {web()}}}
}

func TestDamageIsNoticedAndMended(t *testing.T) {
	for name, damage := range map[string]string{
		"table deleted":             "delete table ip steelyard",
		"table emptied":             "flush table ip steelyard",
		"chain emptied":             "flush chain ip steelyard services",
		"base chain deleted":        "flush chain ip steelyard nat-prerouting; delete chain ip steelyard nat-prerouting",
		"rule added":                "insert rule ip steelyard services return",
		"chain of a class emptied":  "flush chain ip steelyard external-local-1-of-2-sticky-3h0m0s",
		"ruleset flushed":           "flush ruleset",
		"table of IPv6 deleted":     "delete table ip6 steelyard",
		"table replaced by another": "delete table ip steelyard; add table ip steelyard",
	} {
		t.Run(name, func(t *testing.T) {
			privateNet(t)
			b, m := newBackend(t, dataplane.Full), webModel()
			if err := b.Sync(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
			want := nftCommand(t, "list", "ruleset")
			nftCommand(t, damage)
			if err := b.Intact(t.Context()); err == nil {
				t.Error("the damage is not noticed")
			}
			if err := b.Sync(t.Context(), m, nil); err != nil {
				t.Fatal(err)
			}
			if err := b.Intact(t.Context()); err != nil {
				t.Errorf("after it was mended: %v", err)
			}
			if got := nftCommand(t, "list", "ruleset"); len(got) != len(want) {
				t.Errorf("the rules are\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Elements are not looked at by Intact, but Sync with nothing taken for granted puts them right.
func TestForeignElementsGoAndMissingOnesComeBack(t *testing.T) {
	privateNet(t)
	b, m := newBackend(t, dataplane.Full), webModel()
	if err := b.Sync(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	want := kernel(t, b)
	nftCommand(t, "flush map ip steelyard services; add element ip steelyard rejected { 10.9.9.9 . tcp . 80 }; flush set ip steelyard sources")
	if err := b.Sync(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	compareKernels(t, "after Sync", kernel(t, b), want)
}

// What a client sticks to survives a restart, and a Sync of what is right already changes nothing.
func TestRestartDisturbsNothing(t *testing.T) {
	privateNet(t)
	b, m := newBackend(t, dataplane.Full), webModel()
	m.Ports["default/other"] = []*dataplane.Port{clusterIPService(1, 3)}
	if err := b.Sync(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	id := b.tables[0].ports["default/web"][0].id
	nftCommand(t, fmt.Sprintf("add element ip steelyard clients { %#x . 203.0.113.9 timeout 1h : 0x0 . 10.244.2.2 . 8080 }", id))
	again := newBackend(t, dataplane.Full)
	before, err := b.conn.GetGen()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Sync(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	after, err := b.conn.GetGen()
	if err != nil {
		t.Fatal(err)
	}
	if before.ID != after.ID {
		t.Errorf("the ruleset went from generation %d to %d, though nothing is new", before.ID, after.ID)
	}
	if got := again.tables[0].ports["default/web"][0].id; got != id {
		t.Errorf("the port's id is %d, want %d, which its clients are stored under", got, id)
	}
	if !strings.Contains(nftCommand(t, "list", "map", "ip", "steelyard", "clients"), "203.0.113.9") {
		t.Error("a client was forgotten")
	}
}

func TestUnusedChainsGo(t *testing.T) {
	privateNet(t)
	b, m := newBackend(t, dataplane.Full), webModel()
	for n := range 5 {
		m.Ports["default/other"] = []*dataplane.Port{clusterIPService(1, n)}
		if err := b.Sync(t.Context(), m, []string{"default/other"}); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(nftCommand(t, "list", "chains", "ip"), "pick-cluster-3 ") {
		t.Fatal("there is no chain to pick one of three endpoints, so that this test shows nothing")
	}
	if err := b.Sync(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	if chains := nftCommand(t, "list", "chains", "ip"); strings.Contains(chains, "pick-cluster-3 ") || !strings.Contains(chains, "pick-cluster-4 ") {
		t.Errorf("the chains are\n%s\nwant one for 4 endpoints and none for 3", chains)
	}
	if err := b.Intact(t.Context()); err != nil {
		t.Error(err)
	}
}

// The other proxy's rules, and everybody else's, stay.
func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	privateNet(t)
	nftCommand(t, "add table ip kube-proxy; add chain ip kube-proxy services; add rule ip kube-proxy services accept; add table inet steelyard")
	want := nftCommand(t, "list", "ruleset")
	b := newBackend(t, dataplane.LoadBalancer)
	if err := b.Sync(t.Context(), webModel(), nil); err != nil {
		t.Fatal(err)
	}
	other := newBackend(t, dataplane.Full)
	if err := other.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := nftCommand(t, "list", "ruleset"); got != want {
		t.Errorf("the rules are\n%s\nwant\n%s", got, want)
	}
}

func TestChangeOfModeReplacesTheTable(t *testing.T) {
	privateNet(t)
	m := webModel()
	for _, mode := range []dataplane.Mode{dataplane.Full, dataplane.LoadBalancer} {
		b := newBackend(t, mode)
		if err := b.Sync(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
		list := nftCommand(t, "list", "table", "ip", "steelyard")
		if mark := fmt.Sprintf("%#08x", markBit(mode)); !strings.Contains(list, mark[2:]) {
			t.Errorf("mode %s does not use the mark %s", mode, mark)
		}
		if err := b.Intact(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
