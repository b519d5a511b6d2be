package gobgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// batch is how many routes GoBGP is given at once. It does nothing else meanwhile.
const batch = 1000

// Next hops of routes inside GoBGP. Whatever it tells a peer has another one, by policy; one that is unspecified it would replace with
// its own address in the session, on the loopback interface.
var (
	nowhere4 = netip.MustParseAddr("192.0.0.8") // RFC 7600, the dummy address
	nowhere6 = netip.MustParseAddr("100::1")    // RFC 6666, the discard prefix
)

// table is what GoBGP knows of routes, and the policy by which each peer gets those that are for it.
type table struct {
	engine *server.BgpServer
	policy *policy

	mu        sync.Mutex
	routes    map[netip.Prefix]*variant
	variants  map[string]*variant
	addresses map[string]netip.Addr // by peer: what GoBGP knows it by
	asns      map[string]uint32     // by peer: what we are to it
	last      uint32                // the last variant's number

	counting sync.Mutex         // never held for long: whoever asks does not wait for ten thousand routes
	count    map[string]*[2]int // by peer: IPv4 and IPv6 routes that it is told
}

func newTable(engine *server.BgpServer) (*table, error) {
	p, err := newPolicy(engine)
	return &table{
		engine: engine, policy: p, routes: map[netip.Prefix]*variant{}, variants: map[string]*variant{},
		addresses: map[string]netip.Addr{}, asns: map[string]uint32{}, count: map[string]*[2]int{},
	}, err
}

// address returns what GoBGP knows a peer by. It is the same for as long as the process runs: routes may name a peer before there is
// one.
func (t *table) address(name string) netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addressOf(name)
}

func (t *table) addressOf(name string) netip.Addr {
	if a, ok := t.addresses[name]; ok {
		return a
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 127<<24|1<<16+uint32(len(t.addresses)))
	a := netip.AddrFrom4(b)
	t.addresses[name] = a
	return a
}

func (t *table) know(peer string, asn uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asns[peer] = asn
}

// told returns how many routes of each family a peer is told.
func (t *table) told(peer string) (v4, v6 int) {
	t.counting.Lock()
	defer t.counting.Unlock()
	if c := t.count[peer]; c != nil {
		return c[0], c[1]
	}
	return 0, 0
}

func (t *table) add(v *variant, prefix netip.Prefix, n int) {
	family := 0
	if prefix.Addr().Is6() {
		family = 1
	}
	v.routes += n
	t.counting.Lock()
	defer t.counting.Unlock()
	for i := range v.paths {
		for _, peer := range v.paths[i].Peers {
			c := t.count[peer]
			if c == nil {
				c = &[2]int{}
				t.count[peer] = c
			}
			c[family] += n
		}
	}
}

// apply sets and removes routes.
func (t *table) apply(set []bgp.Route, gone []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := map[*variant]bool{}
	var withdraw, announce []*apiutil.Path
	for _, prefix := range gone {
		if v := t.routes[prefix]; v != nil {
			t.add(v, prefix, -1)
			left[v] = true
			delete(t.routes, prefix)
			withdraw = append(withdraw, enginePath(prefix, 0))
		}
	}
	for i := range set {
		prefix := set[i].Prefix
		v, err := t.variant(set[i].Paths)
		if err != nil {
			return fmt.Errorf("announce %s: %w", prefix, err)
		}
		old := t.routes[prefix]
		if old == v {
			continue
		}
		if old != nil {
			t.add(old, prefix, -1)
			left[old] = true
		}
		t.add(v, prefix, 1)
		t.routes[prefix] = v
		announce = append(announce, enginePath(prefix, v.number))
	}
	for len(withdraw) > 0 {
		n := min(batch, len(withdraw))
		if err := t.engine.DeletePath(apiutil.DeletePathRequest{Paths: withdraw[:n]}); err != nil {
			return fmt.Errorf("withdraw %d routes: %w", n, err)
		}
		withdraw = withdraw[n:]
	}
	for len(announce) > 0 {
		n := min(batch, len(announce))
		if _, err := t.engine.AddPath(apiutil.AddPathRequest{Paths: announce[:n]}); err != nil {
			return fmt.Errorf("announce %d routes: %w", n, err)
		}
		announce = announce[n:]
	}
	// GoBGP looks at what a peer was told before, by the policy, to see whether something must be withdrawn from it: a variant's
	// statements go after its routes.
	for v := range left {
		if v.routes == 0 {
			delete(t.variants, v.key)
			if err := t.policy.remove(v.statements...); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget removes what a peer that is gone needed of the policy.
func (t *table) forget(address netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.policy.forgetNextHops(address)
}

// nextHops sets what a peer is told as the next hop of each family; an invalid one withholds the family. It returns whether anything
// differs.
func (t *table) nextHops(address, v4, v6 netip.Addr) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.policy.nextHops(address, v4, v6)
}

// enginePath is a route with a variant's number, which is where the policy finds it.
func enginePath(prefix netip.Prefix, number uint32) *apiutil.Path {
	nlri, _ := packet.NewIPAddrPrefix(prefix)
	p := &apiutil.Path{Nlri: nlri, Age: time.Now().Unix(), Attrs: []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP), packet.NewPathAttributeLocalPref(number),
	}}
	if prefix.Addr().Is4() {
		p.Family = packet.RF_IPv4_UC
		hop, _ := packet.NewPathAttributeNextHop(nowhere4)
		p.Attrs = append(p.Attrs, hop)
	} else {
		p.Family = packet.RF_IPv6_UC
		reach, _ := packet.NewPathAttributeMpReachNLRI(p.Family, []packet.PathNLRI{{NLRI: nlri}}, nowhere6)
		p.Attrs = append(p.Attrs, reach)
	}
	return p
}
