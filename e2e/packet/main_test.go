// Package packet checks the dataplane by its packets: scenarios of clients, nodes and pods in network namespaces of their own, each with an
// engine that runs for real on every node.
package packet

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(agentVariable); config != "" {
		if err := runAgent(config); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	// Most of a scenario is waiting, for what must stay silent above all.
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		_ = flag.Set("test.parallel", "5")
	}
	os.Exit(m.Run())
}

// entry is a scenario of the table.
type entry struct {
	number int
	name   string // given, when, then
	run    func(*scenario)
	// conf is how the agents run; full mode if it does not say.
	conf dataplane.Config
	// balancer: it holds in LoadBalancer mode too.
	balancer bool
	// only names the backend that it is about, once that it has nothing to do with the family.
	only string
	once bool
}

var backends = []string{"iptables", "nftables"}

var table = slices.Concat(policies, flows, endpoints, affinity, changes, sources, life)

func TestScenarios(t *testing.T) {
	for _, e := range table {
		t.Run(fmt.Sprintf("%02d %s", e.number, e.name), func(t *testing.T) {
			t.Parallel()
			for _, backend := range backends {
				if e.only != "" && e.only != backend {
					continue
				}
				t.Run(backend, func(t *testing.T) {
					e.runFamilies(t, settings{Config: e.conf, Backend: backend})
					if e.balancer {
						conf := e.conf
						conf.Mode = dataplane.LoadBalancer
						t.Run("loadbalancer", func(t *testing.T) {
							e.runFamilies(t, settings{Config: conf, Backend: backend})
						})
					}
				})
			}
		})
	}
}

func (e entry) runFamilies(t *testing.T, conf settings) {
	if conf.Mode == "" {
		conf.Mode = dataplane.Full
	}
	for _, v6 := range []bool{false, true} {
		if v6 && e.once {
			return
		}
		family := "IPv4"
		if v6 {
			family = "IPv6"
		}
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			e.run(newScenario(t, conf, v6))
		})
	}
}

// TestTableIsComplete holds the table against the list of scenarios; those about steering connections between nodes have no place here.
func TestTableIsComplete(t *testing.T) {
	have := map[int]bool{}
	for _, e := range table {
		have[e.number] = true
	}
	for n := 1; n <= 60; n++ {
		if steering := n >= 26 && n <= 30; have[n] == steering {
			t.Errorf("scenario %d: in the table: %t", n, have[n])
		}
	}
}

// TestWorld checks the topology itself: whatever the scenarios find is the dataplane's doing then.
func TestWorld(t *testing.T) {
	t.Parallel()
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, p := range pods {
		e, err := serve(w.hosts[p.name], 8080)
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		for _, from := range []string{"cl", "n1", "n2", "pA1", "pB1", p.name} {
			err := places[p.name].both(func(a netip.Addr) error {
				for _, o := range []outcome{
					w.hosts[from].tcp(netip.Addr{}, netip.AddrPortFrom(a, 8080), patience),
					w.hosts[from].udp(netip.AddrPort{}, netip.AddrPortFrom(a, 8080), 8000, patience),
				} {
					if o.err != nil || o.by != p.name || !w.hosts[from].has(o.saw.Addr()) {
						return fmt.Errorf("%s to %s: %s", from, a, o)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
}
