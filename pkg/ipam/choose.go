package ipam

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// choose adds addresses of the families that are missing: those reserved for the Service by name, then those that it can share, then free
// ones. With addresses, a refusal tells why there are no more.
func (a *Allocator) choose(r *Request, named []*pool, addrs []netip.Addr) ([]netip.Addr, *refusal) {
	pools := a.candidates(r, named)
	if len(addrs) > 0 {
		home := a.poolOf(addrs[0])
		pools = append([]*pool{home}, slices.DeleteFunc(pools, func(p *pool) bool { return p == home })...)
	}
	addrs = gather(r, addrs, a.reservedFor(r, named), func(p *pool, f Family) (netip.Addr, bool) { return a.lowestReserved(r, p, f) })
	if r.Sharing.Key != "" {
		addrs = gather(r, addrs, pools, func(p *pool, f Family) (netip.Addr, bool) { return a.lowestShared(r, p, f) })
	}
	addrs = gather(r, addrs, pools, func(p *pool, f Family) (netip.Addr, bool) {
		if !a.withinQuota(r, p, f) {
			return netip.Addr{}, false
		}
		return p.next(r.Service, f)
	})
	missing := r.missing(addrs)
	if len(missing) == 0 {
		return sorted(addrs), nil
	}
	why := a.shortfall(r, pools, missing)
	if r.Policy == corev1.IPFamilyPolicyPreferDualStack {
		return addrs, why
	}
	return nil, why
}

// gather adds the missing families' addresses: of the first pool that has all, so that one set of advertisements applies to them, else
// each of the first pool that has it.
func gather(r *Request, addrs []netip.Addr, pools []*pool, find func(*pool, Family) (netip.Addr, bool)) []netip.Addr {
	missing := r.missing(addrs)
	from := make([]netip.Addr, len(missing))
	for _, p := range pools {
		all := true
		found := make([]netip.Addr, len(missing))
		for i, f := range missing {
			addr, ok := find(p, f)
			if ok && !from[i].IsValid() {
				from[i] = addr
			}
			found[i], all = addr, all && ok
		}
		if all {
			return append(addrs, found...)
		}
	}
	return append(addrs, slices.DeleteFunc(from, func(addr netip.Addr) bool { return !addr.IsValid() })...)
}

// candidates returns the pools that the Service may have a free address of, in the order of choice. Pools reserved for some Services go
// before those for everybody.
func (a *Allocator) candidates(r *Request, named []*pool) []*pool {
	if named != nil {
		return slices.Clone(named)
	}
	var reserved, open []*pool
	for _, p := range a.pools {
		switch {
		case !p.AutoAssign:
		case p.Allocation == nil:
			open = append(open, p)
		case p.allows(r):
			reserved = append(reserved, p)
		}
	}
	slices.SortFunc(reserved, byPriority)
	return append(reserved, open...)
}

// reservedFor returns the pools that have addresses which are reserved for the Service by its name.
func (a *Allocator) reservedFor(r *Request, named []*pool) []*pool {
	var pools []*pool
	for _, p := range a.pools {
		if len(p.own[r.Service]) > 0 && p.allows(r) && (named == nil || slices.Contains(named, p)) {
			pools = append(pools, p)
		}
	}
	return pools
}

// lowestReserved returns the lowest address of a pool that is reserved for the Service by its name, and is free or one that it can share.
func (a *Allocator) lowestReserved(r *Request, p *pool, family Family) (netip.Addr, bool) {
	for _, piece := range p.own[r.Service] {
		if FamilyOf(piece.From) != family {
			continue
		}
		within := a.withinQuota(r, p, family)
		for addr := piece.From; piece.Contains(addr); addr = addr.Next() {
			if p.gives(addr) && a.obstacle(r, addr) == nil && (within || inNamespace(a.holders[addr], r.Service.Namespace)) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}
