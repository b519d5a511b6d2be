package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mayKeep tells whether the pools and the Service's families still allow an address that the Service has.
func (a *Allocator) mayKeep(r *Request, addr netip.Addr) bool {
	p := a.poolOf(addr)
	return p != nil && p.gives(addr) && p.allows(r) && r.has(FamilyOf(addr))
}

// plan returns the addresses that the Service is to have: those that it asks for, else those that it has, else the lowest of the
// first pool that can serve it. Two addresses come from one pool, so that one set of advertisements applies to both.
func (a *Allocator) plan(r *Request, kept []netip.Addr) ([]netip.Addr, *refusal) {
	if r.Policy == corev1.IPFamilyPolicyRequireDualStack && !r.dualStack() {
		return nil, &refusal{NoSecondFamily, fmt.Sprintf(
			"spec.ipFamilyPolicy is RequireDualStack, but the Service has cluster addresses of %s only: use PreferDualStack, or give the cluster a second Service range",
			r.Families[0])}
	}
	named, refused := a.requestedPool(r)
	if refused != nil {
		return nil, refused
	}
	pinned, pinnedPool, refused := a.pinned(r, named)
	if refused != nil {
		return nil, refused
	}

	from := named // the pool that all addresses have to be from, nil for any
	if pinnedPool != nil {
		from = pinnedPool
	}
	addrs := slices.Clone(pinned)
	for _, addr := range kept {
		if !hasFamily(addrs, FamilyOf(addr)) && (from == nil || a.poolOf(addr) == from) {
			addrs = append(addrs, addr)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(r.Families), func(f Family) bool { return hasFamily(addrs, f) })
	if len(missing) == 0 {
		return sorted(addrs), nil
	}
	if len(addrs) > 0 {
		p := a.poolOf(addrs[0])
		if addr, ok := p.lowest(missing[0]); ok {
			return sorted(append(addrs, addr)), nil
		}
		if r.Policy == corev1.IPFamilyPolicyPreferDualStack {
			return addrs, nil
		}
		if from != nil {
			return nil, shortfall([]*pool{from}, missing, true)
		}
	}
	return a.choose(r, named)
}

// pinned returns the addresses that the Service asks for and may have, and their pool.
func (a *Allocator) pinned(r *Request, named *pool) ([]netip.Addr, *pool, *refusal) {
	addrs, wish, refused := r.requestedAddresses()
	if refused != nil {
		return nil, nil, refused
	}
	refuse := func(reason Reason, addr netip.Addr, format string, args ...any) ([]netip.Addr, *pool, *refusal) {
		return nil, nil, &refusal{reason, fmt.Sprintf("%s asks for %s, ", wish.Source, addr) + fmt.Sprintf(format, args...)}
	}
	var from *pool
	for _, addr := range addrs {
		p := a.poolOf(addr)
		switch {
		case p == nil && len(a.pools) == 0:
			return refuse(OutsidePools, addr, "but there is no IPAddressPool: create one that has it")
		case p == nil:
			return refuse(OutsidePools, addr, "which is in no IPAddressPool: ask for an address of %s, or add it to one of them", list(a.pools))
		case named != nil && p != named:
			return refuse(OutsidePools, addr, "which is in pool %s and not in %s that %s asks for: change one of the two",
				p.Name, named.Name, r.Pool.Source)
		case !p.gives(addr):
			return refuse(AvoidedAddress, addr, "which pool %s never gives out, because its spec.avoidBuggyIPs is true: ask for one that ends in neither .0 nor .255", p.Name)
		case !p.allows(r):
			return refuse(PoolNotAllowed, addr, "which is in pool %s, whose spec.serviceAllocation does not allow this Service: ask for another address, or add the Service's namespace or labels there", p.Name)
		case from != nil && p != from:
			return refuse(DifferentPools, addr, "which is in pool %s, and for an address of pool %s: ask for two of the same pool", p.Name, from.Name)
		}
		if holder, held := a.holders[addr]; held && holder != r.Service {
			return refuse(AddressTaken, addr, "which Service %s has: ask for another address, or delete that Service", holder)
		}
		from = p
	}
	return addrs, from, nil
}

// choose picks a pool for a Service that has no address. Pools reserved for some Services go before those for everybody.
func (a *Allocator) choose(r *Request, named *pool) ([]netip.Addr, *refusal) {
	if len(a.pools) == 0 {
		return nil, &refusal{NoPools, "there is no IPAddressPool: create one"}
	}
	var reserved, open []*pool
	for _, p := range a.pools {
		switch {
		case named != nil || !p.AutoAssign:
		case p.Allocation == nil:
			open = append(open, p)
		case p.allows(r):
			reserved = append(reserved, p)
		}
	}
	slices.SortFunc(reserved, byPriority)
	if named != nil {
		open = []*pool{named}
	}
	for _, pools := range [][]*pool{reserved, open} {
		if addrs := lowestOf(pools, r.Families); addrs != nil {
			return addrs, nil
		}
		if r.Policy != corev1.IPFamilyPolicyPreferDualStack {
			continue
		}
		for _, f := range r.Families {
			if addrs := lowestOf(pools, []Family{f}); addrs != nil {
				return addrs, nil
			}
		}
	}
	candidates := slices.Concat(reserved, open)
	if len(candidates) == 0 {
		return nil, &refusal{NoPoolForService, fmt.Sprintf(
			"no pool gives this Service an address unasked, because spec.autoAssign is false or spec.serviceAllocation is for other Services in %s: ask for a pool with annotation steelyard.io/address-pool, or change one of them",
			list(a.pools))}
	}
	return nil, shortfall(candidates, r.Families, r.Policy != corev1.IPFamilyPolicyPreferDualStack)
}

// lowestOf returns the lowest addresses of the first pool that has one of each family, or nil.
func lowestOf(pools []*pool, families []Family) []netip.Addr {
	for _, p := range pools {
		var addrs []netip.Addr
		for _, f := range families {
			if addr, ok := p.lowest(f); ok {
				addrs = append(addrs, addr)
			}
		}
		if len(addrs) == len(families) {
			return sorted(addrs)
		}
	}
	return nil
}

// shortfall tells why none of the pools can give an address of each family, or of any family if not all are needed.
func shortfall(pools []*pool, families []Family, all bool) *refusal {
	able := slices.DeleteFunc(slices.Clone(pools), func(p *pool) bool {
		lacking := slices.DeleteFunc(slices.Clone(families), func(f Family) bool { return p.total[f] > 0 })
		return len(lacking) == len(families) || all && len(lacking) > 0
	})
	if len(able) == 0 {
		wanted := fmt.Sprintf("no %s addresses: add a range to spec.addresses", families[0])
		if len(families) == 2 {
			wanted = "no addresses of both families, and a Service takes both from one pool: add the missing ones to spec.addresses"
		}
		return &refusal{FamilyUnavailable, fmt.Sprintf("pool %s has %s", list(pools), wanted)}
	}
	var full []string
	for _, p := range able[:min(len(able), 5)] {
		for _, f := range families {
			if p.total[f] > 0 && p.available(f) == 0 {
				full = append(full, fmt.Sprintf("pool %s is full, %d of %d %s addresses are in use", p.Name, p.used[f], p.total[f], f))
			}
		}
	}
	return &refusal{PoolExhausted, fmt.Sprintf(
		"%s: widen spec.addresses of an IPAddressPool, add a pool, or delete a Service that no longer needs its address",
		strings.Join(full, "; "))}
}

// result puts the decision into words.
func (a *Allocator) result(r *Request, addrs []netip.Addr, refused *refusal) Result {
	res := Result{Addrs: slices.Clone(addrs), Lost: a.lost(r, addrs)}
	switch {
	case refused != nil:
		res.Reason, res.Message = refused.reason, refused.message
		if len(addrs) > 0 {
			res.Message += fmt.Sprintf("; until then the Service keeps %s", join(addrs))
		}
	case len(addrs) < len(r.Families):
		res.Reason = AssignedOneFamily
		missing := ipv4
		if hasFamily(addrs, ipv4) {
			missing = ipv6
		}
		res.Message = fmt.Sprintf("%s; no %s address, because %s", a.origin(addrs), missing,
			shortfall([]*pool{a.poolOf(addrs[0])}, []Family{missing}, true).message)
	default:
		res.Reason, res.Message = Assigned, a.origin(addrs)
	}
	return res
}

// origin tells which pools the addresses are from.
func (a *Allocator) origin(addrs []netip.Addr) string {
	if len(addrs) == 2 && a.poolOf(addrs[0]) != a.poolOf(addrs[1]) {
		return a.origin(addrs[:1]) + " and " + a.origin(addrs[1:])
	}
	return fmt.Sprintf("%s from pool %s", join(addrs), a.poolOf(addrs[0]).Name)
}

// lost tells which addresses in the Service's status are not in addrs, and why.
func (a *Allocator) lost(r *Request, addrs []netip.Addr) string {
	var lost []string
	for _, addr := range r.Current {
		if slices.Contains(addrs, addr) {
			continue
		}
		p := a.poolOf(addr)
		holder := a.holders[addr]
		switch {
		case holder != r.Service:
			lost = append(lost, fmt.Sprintf("%s, which belongs to Service %s", addr, holder))
		case p == nil:
			lost = append(lost, fmt.Sprintf("%s, which is in no pool any longer", addr))
		case !p.gives(addr):
			lost = append(lost, fmt.Sprintf("%s, which pool %s gives out no longer", addr, p.Name))
		case !p.allows(r):
			lost = append(lost, fmt.Sprintf("%s, whose pool %s is reserved for other Services now", addr, p.Name))
		default:
			lost = append(lost, addr.String())
		}
	}
	return strings.Join(lost, "; ")
}
