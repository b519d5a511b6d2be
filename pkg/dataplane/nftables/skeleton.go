package nftables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// The sets and maps. There are as many as here, however many Services there are: the kernel's cost of a transaction grows with the sets.
const (
	setServices          = "services"            // address . protocol . port -> chain of its class
	setEndpoints         = "endpoints"           // address . protocol . port . index -> endpoint, for traffic that may go to any node
	setLocalEndpoints    = "local-endpoints"     // the same for traffic that stays on this node
	setNodePorts         = "node-ports"          // protocol . port -> chain of its class
	setNodePortEndpoints = "node-port-endpoints" // protocol . port . index -> endpoint
	setNodePortLocal     = "node-port-local"     // the same for traffic that stays on this node
	setRejected          = "rejected"            // address . protocol . port that nothing serves
	setDropped           = "dropped"             // address . protocol . port that only other nodes serve, where the policy is Local
	setRejectedNodePorts = "rejected-node-ports" // protocol . port
	setDroppedNodePorts  = "dropped-node-ports"  // protocol . port
	setRestricted        = "restricted"          // address . protocol . port with source ranges
	setSources           = "sources"             // address . protocol . port . source that may use it
	setClusterIPs        = "cluster-ips"         // addresses of which ports without a Service are rejected
	setHairpin           = "hairpin"             // source . destination: endpoints on this node that reach themselves
	setNodePortAddrs     = "node-port-addrs"     // local addresses that node ports are open on
)

func (f family) sets(table *nft.Table) []*nft.Set {
	addr := nft.TypeIPAddr
	if f.Family == dataplane.IPv6 {
		addr = nft.TypeIP6Addr
	}
	// Numbers are of the type mark: of those that nft can print it is the one in the byte order of the host.
	num, proto, port := nft.TypeMark, nft.TypeInetProto, nft.TypeInetService
	set := func(name string, key ...nft.SetDatatype) *nft.Set {
		return &nft.Set{Table: table, Name: name, KeyType: nft.MustConcatSetType(key...), Concatenation: len(key) > 1}
	}
	mapTo := func(s *nft.Set, value ...nft.SetDatatype) *nft.Set {
		s.IsMap, s.DataType = true, nft.MustConcatSetType(value...)
		return s
	}
	sources := set(setSources, addr, proto, port, addr)
	sources.Interval = true
	clients := mapTo(set(setClients, num, addr), num, addr, port)
	clients.Dynamic, clients.HasTimeout, clients.Size = true, true, maxClients
	return []*nft.Set{
		mapTo(set(setServices, addr, proto, port), nft.TypeVerdict),
		mapTo(set(setEndpoints, addr, proto, port, num), addr, port),
		mapTo(set(setLocalEndpoints, addr, proto, port, num), addr, port),
		mapTo(set(setNodePorts, proto, port), nft.TypeVerdict),
		mapTo(set(setNodePortEndpoints, proto, port, num), addr, port),
		mapTo(set(setNodePortLocal, proto, port, num), addr, port),
		set(setRejected, addr, proto, port),
		set(setDropped, addr, proto, port),
		set(setRejectedNodePorts, proto, port),
		set(setDroppedNodePorts, proto, port),
		set(setRestricted, addr, proto, port),
		sources,
		set(setClusterIPs, addr),
		set(setHairpin, addr, addr),
		set(setNodePortAddrs, addr),
		mapTo(set(setIDs, addr, proto, port), num, num),
		mapTo(set(setNodePortIDs, proto, port), num, num),
		mapTo(set(setChoices, num, num), num, addr, port),
		mapTo(set(setLocalChoices, num, num), num, addr, port),
		set(setMembers, addr, port, num),
		set(setLocalMembers, addr, port, num),
		clients,
	}
}

type rule struct {
	comment string
	exprs   exprs
}

// hook says where a base chain hangs.
type hook struct {
	kind     nft.ChainType
	num      *nft.ChainHook
	priority nft.ChainPriority
}

type chain struct {
	name  string
	hook  *hook
	rules []rule
}

// The chains that others refer to.
const (
	chainServices = "services"
	chainSources  = "source-ranges"
	chainRefuse   = "refuse"
	chainReject   = "reject"
	chainOutsider = "mark-outsiders"
)

// Translation happens just before the standard priorities (-100 and 100), because the first chain that translates a connection wins: where
// another proxy runs beside this one, the addresses in our maps are ours. Source ranges come before that, since they are about what the
// client asked for.
const (
	prioritySources  = -110
	priorityServices = -105
	priorityMasq     = 95
)

// markBit marks connections to masquerade, as kube-proxy does; beside another proxy it has to be a bit of our own.
func markBit(mode dataplane.Mode) uint32 {
	if mode == dataplane.Full {
		return 0x4000
	}
	return 0x2000
}

// skeleton is everything in a table but what Services bring.
func (f family) skeleton(mode dataplane.Mode, host dataplane.Host) []chain {
	bit := markBit(mode)
	prerouting, output := nft.ChainHookPrerouting, nft.ChainHookOutput
	base := func(name string, kind nft.ChainType, num *nft.ChainHook, priority nft.ChainPriority, rules ...rule) chain {
		return chain{name, &hook{kind, num, priority}, rules}
	}
	newTo := func(target string) rule { return rule{"new connections", join(ctNew(), jump(target))} }

	var services []rule
	if mode == dataplane.Full {
		services = []rule{{"", join(f.load(f.daddr, keyReg), in(setClusterIPs, keyReg), jump(chainOutsider))}}
	}
	services = append(services, rule{"a Service's address", join(f.serviceKey(), lookupVerdict(setServices, keyReg))})
	refuse := []rule{
		{"nothing serves it", join(f.serviceKey(), in(setRejected, keyReg), gotoChain(chainReject))},
		{"served on other nodes only", join(f.serviceKey(), in(setDropped, keyReg), verdict(expr.VerdictDrop))},
	}
	input := []rule{newTo(chainRefuse)}
	if mode == dataplane.Full {
		services = append(services, rule{"a node port", join(f.notLoopback(), f.openForNodePorts(host),
			f.nodePortKey(), lookupVerdict(setNodePorts, keyReg))})
		refuse = append(refuse, rule{"no such port of a ClusterIP", join(f.load(f.daddr, keyReg), in(setClusterIPs, keyReg), gotoChain(chainReject))})
		input = append(input,
			rule{"node port that nothing serves", join(ctNew(), f.nodePortKey(), in(setRejectedNodePorts, keyReg),
				f.notLoopback(), f.openForNodePorts(host), gotoChain(chainReject))},
			rule{"node port served on other nodes only", join(ctNew(), f.nodePortKey(), in(setDroppedNodePorts, keyReg),
				f.notLoopback(), f.openForNodePorts(host), verdict(expr.VerdictDrop))})
	}
	var outsiders []rule
	if !host.MasqueradeAll {
		for _, from := range f.pods(host) {
			outsiders = append(outsiders, rule{"a pod of this node", join(from, verdict(expr.VerdictReturn))})
		}
	}
	if host.MasqueradeAll || len(outsiders) > 0 {
		outsiders = append(outsiders, rule{"masquerade", setMark(bit, true)})
	}

	chains := []chain{
		{name: chainOutsider, rules: outsiders},
		{name: chainServices, rules: services},
		// A TCP client gets a reset: it may ignore an ICMP error that comes while it still sends (sock_owned_by_user), and the kernel
		// limits how many of those it sends, so that it would learn a second later, from the answer to its next try.
		{name: chainReject, rules: []rule{{"TCP", join(isTCP(), reset())}, {"other protocols", f.unreachable()}}},
		{name: chainRefuse, rules: refuse},
		{name: chainSources, rules: []rule{{"loadBalancerSourceRanges", join(f.serviceKey(), in(setRestricted, keyReg),
			f.load(f.saddr, keyReg+f.addrRegs+2), notIn(setSources, keyReg), verdict(expr.VerdictDrop))}}},
		base("sources-prerouting", nft.ChainTypeFilter, prerouting, prioritySources, newTo(chainSources)),
		base("sources-output", nft.ChainTypeFilter, output, prioritySources, newTo(chainSources)),
		base("nat-prerouting", nft.ChainTypeNAT, prerouting, priorityServices, rule{"", jump(chainServices)}),
		base("nat-output", nft.ChainTypeNAT, output, priorityServices, rule{"", jump(chainServices)}),
		base("nat-postrouting", nft.ChainTypeNAT, nft.ChainHookPostrouting, priorityMasq,
			// The mark goes, so that a tunnel that wraps the packet in one of its own does not have that masqueraded too.
			rule{"marked", join(hasMark(bit), setMark(bit, false), masquerade())},
			rule{"an endpoint that reaches itself", join(f.load(f.saddr, keyReg), f.load(f.daddr, keyReg+f.addrRegs), in(setHairpin, keyReg),
				ctTranslated(), masquerade())}),
		base("filter-input", nft.ChainTypeFilter, nft.ChainHookInput, 0, input...),
		base("filter-forward", nft.ChainTypeFilter, nft.ChainHookForward, 0, newTo(chainRefuse)),
		base("filter-output", nft.ChainTypeFilter, output, 0, newTo(chainRefuse)),
	}
	example := f.chainsOf(class{external: true, local: true, cluster: 2, node: 1, affinity: time.Second}, mode, host)
	return append([]chain{{name: version(slices.Concat(chains, example))}}, chains...)
}

// openForNodePorts ends the rule unless the packet is for an address that node ports are open on.
func (f family) openForNodePorts(host dataplane.Host) exprs {
	if host.NodePortAddrs == nil {
		return local(false)
	}
	return join(f.load(f.daddr, keyReg), in(setNodePortAddrs, keyReg))
}

// pods returns conditions of which one holds for traffic from pods of this node.
func (f family) pods(host dataplane.Host) []exprs {
	var from []exprs
	for _, p := range host.PodCIDRs {
		if p.Addr().Is4() == (f.Family == dataplane.IPv4) {
			from = append(from, f.addrIn(expr.CmpOpEq, f.saddr, p))
		}
	}
	if host.PodInterfaces != "" {
		from = append(from, interfaceHas(host.PodInterfaces))
	}
	return from
}

// layout is part of each version: raise it when a set changes its type or meaning.
const layout = 1

// version names an empty chain that tells which rules a table was made with.
func version(chains []chain) string {
	h := sha256.New()
	fmt.Fprintln(h, layout)
	for _, c := range chains {
		fmt.Fprintln(h, c.name)
		if c.hook != nil {
			fmt.Fprintln(h, c.hook.kind, *c.hook.num, c.hook.priority)
		}
		for _, r := range c.rules {
			fmt.Fprintln(h, r.comment)
			for _, e := range r.exprs {
				fmt.Fprintf(h, "%T%+v\n", e, e)
			}
		}
	}
	return "version-" + hex.EncodeToString(h.Sum(nil)[:6])
}

// class is a way to treat connections. The Services that are treated alike share its chain.
type class struct {
	external bool // any kind of frontend but ClusterIP
	local    bool // the traffic policy is Local
	// cluster and node are how many endpoints there are, of the set that may be anywhere and of the one on this node; 0 if it is not used.
	cluster, node int
	affinity      time.Duration
}

// chain names the chain of the class. Connections to a ClusterIP are masqueraded, or not, before; all that is left is to pick an endpoint.
func (c class) chain() string {
	switch {
	case !c.external && !c.local:
		return c.pickCluster()
	case !c.external:
		return c.pickLocal()
	case !c.local:
		return "external-cluster-" + strconv.Itoa(c.cluster) + c.sticky()
	default:
		return "external-local-" + strconv.Itoa(c.node) + "-of-" + strconv.Itoa(c.cluster) + c.sticky()
	}
}

func (c class) pickCluster() string { return "pick-cluster-" + strconv.Itoa(c.cluster) + c.sticky() }
func (c class) pickLocal() string   { return "pick-local-" + strconv.Itoa(c.node) + c.sticky() }

func (c class) sticky() string {
	if c.affinity == 0 {
		return ""
	}
	return "-sticky-" + c.affinity.String()
}

// chainsOf returns the chain of the class and those that it goes on to, the latter first.
func (f family) chainsOf(c class, mode dataplane.Mode, host dataplane.Host) []chain {
	var chains []chain
	if c.cluster > 0 {
		chains = append(chains, chain{name: c.pickCluster(), rules: f.rulesOf(c.cluster, c.affinity, false)})
	}
	if c.node > 0 {
		chains = append(chains, chain{name: c.pickLocal(), rules: f.rulesOf(c.node, c.affinity, true)})
	}
	if !c.external {
		return chains
	}
	own := chain{name: c.chain()}
	mark := setMark(markBit(mode), true)
	if !c.local {
		own.rules = []rule{{"masquerade", mark}, {"", gotoChain(c.pickCluster())}}
		return append(chains, own)
	}
	for _, from := range f.pods(host) {
		own.rules = append(own.rules, rule{"a pod of this node", join(from, gotoChain(c.pickCluster()))})
	}
	own.rules = append(own.rules, rule{"this node", join(local(true), mark, gotoChain(c.pickCluster()))})
	if c.node > 0 {
		own.rules = append(own.rules, rule{"the client's address is kept", gotoChain(c.pickLocal())})
	}
	return append(chains, own)
}

// rulesOf returns the rules that choose one of n endpoints.
func (f family) rulesOf(n int, affinity time.Duration, local bool) []rule {
	switch {
	case affinity > 0 && local:
		return f.pickSticky(n, affinity, setLocalChoices, setLocalMembers)
	case affinity > 0:
		return f.pickSticky(n, affinity, setChoices, setMembers)
	case local:
		return f.pick(n, setLocalEndpoints, setNodePortLocal)
	default:
		return f.pick(n, setEndpoints, setNodePortEndpoints)
	}
}

// pick chooses one of n endpoints, by the address that the packet is for. What came by a node port finds nothing there, and goes on.
func (f family) pick(n int, endpoints, nodePortEndpoints string) []rule {
	return []rule{
		{"any endpoint", join(f.serviceKey(), random(f.indexReg(), n), lookup(endpoints, keyReg, endpointReg), f.translate())},
		{"any endpoint of a node port", join(f.nodePortKey(), random(keyReg+2, n), lookup(nodePortEndpoints, keyReg, endpointReg), f.translate())},
	}
}
