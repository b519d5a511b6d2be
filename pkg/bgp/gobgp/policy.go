package gobgp

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// GoBGP's two policies, in the order in which it follows them.
const (
	nextHopPolicy = "nexthops"
	routePolicy   = "routes"
)

const (
	defaultLocalPref = 100
	asTrans          = 23456 // RFC 6793: where a larger ASN does not fit
)

// variant is what peers are told about some routes: one []bgp.Path, as often as it occurs. Inside GoBGP such a route carries the
// variant's number as its LOCAL_PREF, which is what statements of the policy look for: it is compared as a number, and always
// replaced (iBGP) or dropped (eBGP) on the way out.
type variant struct {
	key        string
	number     uint32
	paths      []bgp.Path
	routes     int
	statements []string
}

// variant returns the one for these paths, which it makes if there is none.
func (t *table) variant(paths []bgp.Path) (*variant, error) {
	key := variantKey(paths)
	if v := t.variants[key]; v != nil {
		return v, nil
	}
	t.last++ // never used twice: 4 billion variants last for years
	v := &variant{key: key, number: t.last, paths: paths}
	var statements []*api.Statement
	for i := range paths {
		if len(paths[i].Peers) == 0 {
			continue
		}
		var addresses []netip.Addr
		for _, peer := range paths[i].Peers {
			addresses = append(addresses, t.addressOf(peer))
		}
		set, err := t.policy.peers(addresses)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("variant-%d-%d", v.number, i)
		v.statements = append(v.statements, name)
		statements = append(statements, &api.Statement{
			Name:       name,
			Conditions: &api.Conditions{NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set}, LocalPrefEq: &api.LocalPrefEq{Value: v.number}},
			Actions:    actions(paths[i].Attributes, t.asns[paths[i].Peers[0]]),
		})
	}
	if len(statements) > 0 {
		if err := t.policy.add(routePolicy, statements...); err != nil {
			return nil, err
		}
	}
	t.variants[key] = v
	return v, nil
}

func variantKey(paths []bgp.Path) string {
	var key []byte
	for i := range paths {
		key = fmt.Appendf(key, "%q", paths[i].Peers)
		if paths[i].Attributes != nil {
			key = fmt.Append(key, *paths[i].Attributes)
		} else {
			key = fmt.Append(key, bgp.Attributes{})
		}
	}
	return string(key)
}

// actions make of a route what a peer is told, and accept it. A peer's ASN is what we are to it.
func actions(a *bgp.Attributes, asn uint32) *api.Actions {
	if a == nil {
		a = &bgp.Attributes{}
	}
	out := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT, LocalPref: &api.LocalPrefAction{Value: defaultLocalPref}}
	if a.LocalPref != 0 {
		out.LocalPref.Value = a.LocalPref
	}
	if a.HasMED {
		out.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(a.MED)}
	}
	if a.Prepend > 0 {
		// The leftmost is ours, which GoBGP has put there; towards an iBGP peer there is none, and must be none.
		out.AsPrepend = &api.AsPrependAction{UseLeftMost: true, Repeat: uint32(a.Prepend)}
	}
	var standard, large []string
	for _, c := range a.Communities {
		if c.Large {
			large = append(large, fmt.Sprintf("%d:%d:%d", c.A, c.B, c.C))
		} else {
			standard = append(standard, fmt.Sprintf("%d:%d", c.A, c.B))
		}
	}
	if len(standard) > 0 {
		out.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: standard}
	}
	if len(large) > 0 {
		out.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: large}
	}
	if a.Bandwidth > 0 {
		if asn > math.MaxUint16 {
			asn = asTrans
		}
		text := fmt.Sprintf("lb:%d:%d", asn, min(a.Bandwidth, math.MaxUint32))
		out.ExtCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: []string{text}}
	}
	return out
}

// policy keeps GoBGP's: whatever comes in is rejected, and whatever is not accepted by a statement does not go out.
type policy struct {
	engine *server.BgpServer
	sets   map[string]bool // the sets of peers that GoBGP has
	hops   map[netip.Addr]hops
	serial uint64 // of statements of nextHopPolicy
}

// hops are the next hops of a peer, and the statements that set them.
type hops struct {
	v4, v6     netip.Addr
	statements []string
}

func newPolicy(engine *server.BgpServer) (*policy, error) {
	ctx := context.Background()
	for _, name := range []string{nextHopPolicy, routePolicy} {
		if err := engine.AddPolicy(ctx, &api.AddPolicyRequest{Policy: &api.Policy{Name: name}}); err != nil {
			return nil, fmt.Errorf("make GoBGP's policy %s: %w", name, err)
		}
	}
	for _, a := range []*api.PolicyAssignment{
		{Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
			Policies: []*api.Policy{{Name: nextHopPolicy}, {Name: routePolicy}}},
	} {
		if err := engine.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return nil, fmt.Errorf("put GoBGP's policies in force: %w", err)
		}
	}
	return &policy{engine: engine, sets: map[string]bool{}, hops: map[netip.Addr]hops{}}, nil
}

// peers returns the name of a set of peers, which it makes if there is none. Sets stay: there are few.
func (p *policy) peers(addresses []netip.Addr) (string, error) {
	var list []string
	for _, a := range addresses {
		list = append(list, netip.PrefixFrom(a, 32).String())
	}
	name := strings.Join(list, ",")
	if p.sets[name] {
		return name, nil
	}
	err := p.engine.AddDefinedSet(context.Background(), &api.AddDefinedSetRequest{
		DefinedSet: &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: list},
	})
	if err != nil {
		return "", fmt.Errorf("tell GoBGP of a set of peers: %w", err)
	}
	p.sets[name] = true
	return name, nil
}

// add appends statements to a policy.
func (p *policy) add(name string, statements ...*api.Statement) error {
	err := p.engine.AddPolicy(context.Background(), &api.AddPolicyRequest{Policy: &api.Policy{Name: name, Statements: statements}})
	if err != nil {
		return fmt.Errorf("add to GoBGP's policy %s: %w", name, err)
	}
	return nil
}

// remove takes statements out of whichever policy they are in, and out of GoBGP.
func (p *policy) remove(names ...string) error {
	if len(names) == 0 {
		return nil
	}
	ctx := context.Background()
	var statements []*api.Statement
	for _, name := range names {
		statements = append(statements, &api.Statement{Name: name})
	}
	for _, name := range []string{nextHopPolicy, routePolicy} {
		// Without PreserveStatements it would look for unused ones among those that stay.
		err := p.engine.DeletePolicy(ctx, &api.DeletePolicyRequest{Policy: &api.Policy{Name: name, Statements: statements}, PreserveStatements: true})
		if err != nil {
			return fmt.Errorf("remove from GoBGP's policy %s: %w", name, err)
		}
	}
	for _, s := range statements {
		if err := p.engine.DeleteStatement(ctx, &api.DeleteStatementRequest{Statement: s, All: true}); err != nil {
			return fmt.Errorf("remove GoBGP's statement %s: %w", s.Name, err)
		}
	}
	return nil
}

// nextHops replaces a peer's next hops and returns whether they differ. What is new comes first: without any, a route would go out with
// none that is of use.
func (p *policy) nextHops(address, v4, v6 netip.Addr) (bool, error) {
	old := p.hops[address]
	if old.statements != nil && old.v4 == v4 && old.v6 == v6 {
		return false, nil
	}
	set, err := p.peers([]netip.Addr{address})
	if err != nil {
		return false, err
	}
	p.serial++
	now := hops{v4: v4, v6: v6}
	var statements []*api.Statement
	for _, f := range []struct {
		family *api.Family
		hop    netip.Addr
	}{{family4, v4}, {family6, v6}} {
		s := &api.Statement{
			Name:       fmt.Sprintf("nexthop-%d-%d", p.serial, f.family.Afi),
			Conditions: &api.Conditions{NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: set}, AfiSafiIn: []*api.Family{f.family}},
			Actions:    &api.Actions{},
		}
		if f.hop.IsValid() {
			s.Actions.Nexthop = &api.NexthopAction{Address: f.hop.String()}
		} else {
			s.Actions.RouteAction = api.RouteAction_ROUTE_ACTION_REJECT
		}
		statements = append(statements, s)
		now.statements = append(now.statements, s.Name)
	}
	if err := p.add(nextHopPolicy, statements...); err != nil {
		return false, err
	}
	p.hops[address] = now
	return true, p.remove(old.statements...)
}

func (p *policy) forgetNextHops(address netip.Addr) error {
	old := p.hops[address].statements
	delete(p.hops, address)
	return p.remove(old...)
}
