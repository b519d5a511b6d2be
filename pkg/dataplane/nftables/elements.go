package nftables

import (
	"net/netip"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// slot is a place in a set or map.
type slot struct {
	set string
	key string
	end string // where it is an interval, its last key
}

// content is what a slot holds.
type content struct {
	value   string // bytes
	chain   string // where the value is a verdict: the chain to go to
	comment string
}

type elements map[slot]content

// maxComment is what fits into an element's user data (NFT_USERDATA_MAXLEN) with its header and final zero.
const maxComment = 250

// numbered is a Service's port with the id that its sticky clients are stored under.
type numbered struct {
	*dataplane.Port
	id uint32
}

// add renders a Service's port. use is told of each class.
func (f family) add(out elements, p numbered, use func(class)) {
	cluster, local := f.usable(p.Cluster), f.usable(p.Local)
	comment := p.Name.Service
	if p.Name.Port != "" {
		comment += ":" + p.Name.Port
	}
	comment = comment[:min(len(comment), maxComment)]
	put := func(set, key, value string) { out[slot{set: set, key: key}] = content{value: value, comment: comment} }
	affinity := p.Affinity.Truncate(time.Millisecond)

	var toCluster, toLocal bool
	for _, fe := range p.Frontends {
		key, s, ok := f.frontend(fe, p.Name.Protocol)
		if !ok {
			continue
		}
		if fe.Kind == dataplane.ClusterIP {
			out[slot{set: setClusterIPs, key: addrBytes(fe.Addr.Unmap())}] = content{}
		}
		if fe.Kind == dataplane.LoadBalancerIP && p.SourceRanges != nil {
			put(setRestricted, key, "")
			f.addSources(out, key, fe.Addr.Unmap(), p, comment)
		}
		c := class{external: fe.Kind != dataplane.ClusterIP, affinity: affinity}
		c.local = c.external && p.ExternalLocal || !c.external && p.InternalLocal
		if c.local {
			c.node = len(local)
		}
		if c.external || !c.local {
			c.cluster = len(cluster)
		}
		if len(cluster)+len(local) == 0 {
			put(s.rejected, key, "")
			continue
		}
		if c.local && c.node == 0 {
			put(s.dropped, key, "") // but pods of this node, and the node, may use other nodes' endpoints, at external addresses
		}
		if c.cluster+c.node == 0 {
			continue
		}
		use(c)
		out[slot{set: s.services, key: key}] = content{chain: c.chain(), comment: comment}
		if affinity > 0 {
			toCluster, toLocal = toCluster || c.cluster > 0, toLocal || c.node > 0
			put(s.ids, key, numBytes(0)+numBytes(p.id))
			continue
		}
		if c.cluster > 0 {
			for i, e := range cluster {
				put(s.endpoints, key+numBytes(uint32(i)), addrPortBytes(e.Addr))
			}
		}
		if c.node > 0 {
			for i, e := range local {
				put(s.localEndpoints, key+numBytes(uint32(i)), addrPortBytes(e.Addr))
			}
		}
	}
	id := numBytes(p.id)
	choices := func(endpoints []dataplane.Endpoint, choices, members string) {
		for i, e := range endpoints {
			put(choices, id+numBytes(uint32(i)), numBytes(0)+addrPortBytes(e.Addr))
			put(members, addrPortBytes(e.Addr)+id, "")
		}
	}
	if toCluster {
		choices(cluster, setChoices, setMembers)
	}
	if toLocal {
		choices(local, setLocalChoices, setLocalMembers)
	}
	for _, endpoints := range [][]dataplane.Endpoint{cluster, local} {
		for _, e := range endpoints {
			if e.Local {
				addr := addrBytes(e.Addr.Addr())
				out[slot{set: setHairpin, key: addr + addr}] = content{}
			}
		}
	}
}

// frontendSets are the sets that a kind of frontend is in.
type frontendSets struct{ services, endpoints, localEndpoints, ids, rejected, dropped string }

var (
	addressSets  = frontendSets{setServices, setEndpoints, setLocalEndpoints, setIDs, setRejected, setDropped}
	nodePortSets = frontendSets{setNodePorts, setNodePortEndpoints, setNodePortLocal, setNodePortIDs, setRejectedNodePorts, setDroppedNodePorts}
)

// frontend returns the key of a frontend and the sets that it is in; false if it is not of this family.
func (f family) frontend(fe dataplane.Frontend, proto dataplane.Protocol) (string, frontendSets, bool) {
	key := protoBytes(proto) + portBytes(fe.Port)
	if fe.Kind == dataplane.NodePort {
		return key, nodePortSets, true
	}
	addr := fe.Addr.Unmap()
	return addrBytes(addr) + key, addressSets, f.has(addr)
}

// addSources renders who may use a load-balancer address. The kernel refuses an interval that lies in another one.
func (f family) addSources(out elements, key string, vip netip.Addr, p numbered, comment string) {
	ranges := p.SourceRanges
	if p.OwnSource {
		ranges = append([]netip.Prefix{netip.PrefixFrom(vip, vip.BitLen())}, ranges...)
	}
	for i, r := range ranges {
		if !f.has(r.Addr()) || within(r, ranges, i) {
			continue
		}
		out[slot{setSources, key + addrBytes(r.Masked().Addr()), key + addrBytes(last(r))}] = content{comment: comment}
	}
}

// within tells whether another range contains the i-th one, or an earlier one equals it.
func within(r netip.Prefix, ranges []netip.Prefix, i int) bool {
	for j, o := range ranges {
		if j != i && o.Overlaps(r) && (o.Bits() < r.Bits() || o.Bits() == r.Bits() && j < i) {
			return true
		}
	}
	return false
}

func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// hostElements renders what the node itself brings.
func (f family) hostElements(host dataplane.Host) elements {
	out := elements{}
	for _, a := range host.NodePortAddrs {
		if f.has(a) {
			out[slot{set: setNodePortAddrs, key: addrBytes(a)}] = content{}
		}
	}
	return out
}

func (f family) has(a netip.Addr) bool { return a.Is4() == (f.Family == dataplane.IPv4) && a.IsValid() }

func (f family) usable(all []dataplane.Endpoint) []dataplane.Endpoint {
	for i, e := range all {
		if !f.has(e.Addr.Addr()) {
			return append(all[:i:i], f.usable(all[i+1:])...)
		}
	}
	return all
}

// shared tells whether several Services may have the same slot, with the same content.
func (s slot) shared() bool { return s.set == setClusterIPs || s.set == setHairpin }
