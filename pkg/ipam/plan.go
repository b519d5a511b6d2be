package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// mayKeep tells whether the pools, the Service's families and those that share with it still allow an address that the Service has.
// Reservations and quotas take nothing away.
func (a *Allocator) mayKeep(r *Request, addr netip.Addr) bool {
	p := a.poolOf(addr)
	return p != nil && p.gives(addr) && p.allows(r) && r.has(FamilyOf(addr)) && a.obstacle(r, addr) == nil
}

// plan returns the addresses that the Service is to have: those that it asks for, else those that it has, else those that choose
// finds. With addresses, a refusal tells why there are no more.
func (a *Allocator) plan(r *Request, kept []netip.Addr) ([]netip.Addr, *refusal) {
	if len(a.pools) == 0 {
		return nil, &refusal{NoPools, "there is no IPAddressPool: create one; until then, what another load balancer writes to status.loadBalancer is left alone"}
	}
	if r.Policy == corev1.IPFamilyPolicyRequireDualStack && !r.dualStack() {
		return nil, &refusal{NoSecondFamily, fmt.Sprintf(
			"spec.ipFamilyPolicy is RequireDualStack, but the Service has cluster addresses of %s only: use PreferDualStack, or give the cluster a second Service range",
			r.Families[0])}
	}
	named, refused := a.requestedPools(r)
	if refused != nil {
		return nil, refused
	}
	addrs, refused := a.pinned(r, named)
	if refused != nil {
		return nil, refused
	}
	for _, addr := range kept {
		if !hasFamily(addrs, FamilyOf(addr)) && (named == nil || slices.Contains(named, a.poolOf(addr))) {
			addrs = append(addrs, addr)
		}
	}
	if len(r.missing(addrs)) == 0 {
		return sorted(addrs), nil
	}
	return a.choose(r, named, addrs)
}

// pinned returns the addresses that the Service asks for and may have.
func (a *Allocator) pinned(r *Request, named []*pool) ([]netip.Addr, *refusal) {
	addrs, wish, refused := r.requestedAddresses()
	if refused != nil {
		return nil, refused
	}
	for _, addr := range addrs {
		if refused := a.permit(r, addr, named); refused != nil {
			return nil, &refusal{refused.reason, fmt.Sprintf("%s asks for %s, %s", wish.Source, addr, refused.message)}
		}
	}
	return addrs, nil
}

// permit tells why the Service can't have an address that it asks for, nil if it can.
func (a *Allocator) permit(r *Request, addr netip.Addr, named []*pool) *refusal {
	refuse := func(reason Reason, format string, args ...any) *refusal {
		return &refusal{reason, fmt.Sprintf(format, args...)}
	}
	p := a.poolOf(addr)
	switch {
	case p == nil:
		return refuse(OutsidePools, "which is in no IPAddressPool: ask for an address of %s, or add it to one of them", list(a.pools))
	case named != nil && !slices.Contains(named, p):
		return refuse(OutsidePools, "which is in pool %s and not in %s that %s asks for: change one of the two", p.Name, list(named), r.Pool.Source)
	case !p.gives(addr):
		return refuse(AvoidedAddress, "which pool %s never gives out, because its spec.avoidBuggyIPs is true: ask for one that ends in neither .0 nor .255", p.Name)
	case !p.allows(r):
		return refuse(PoolNotAllowed, "which is in pool %s, whose spec.serviceAllocation does not allow this Service: ask for another address, or add the Service's namespace or labels there", p.Name)
	}
	if why := a.obstacle(r, addr); why != nil {
		return refuse(why.reason, "%s: %s", why.fact, why.mend)
	}
	if slices.Contains(a.holders[addr], r.Service) {
		return nil
	}
	// Who fits those that have a reserved address takes nothing from whom it is reserved for.
	if piece := p.piece(addr); piece != nil && len(a.holders[addr]) == 0 && !piece.isFor(r.Service) {
		return refuse(AddressReserved, "which AddressReservation %s keeps %s: ask for another address, or change spec.for of the reservation",
			piece.by.Name, beneficiary(piece.by))
	}
	if !inNamespace(a.holders[addr], r.Service.Namespace) && !a.withinQuota(r, p, FamilyOf(addr)) {
		return refuse(QuotaExceeded, "but %s: %s", a.quotaText(r, p, FamilyOf(addr)), quotaMend)
	}
	return nil
}

// withinQuota tells whether the Service's namespace may have one more address of a pool. Those that the Service gives up for it
// don't count.
func (a *Allocator) withinQuota(r *Request, p *pool, family Family) bool {
	limit, limited := p.Quota(r.Service.Namespace, r.NamespaceLabels)
	if !limited {
		return true
	}
	used := p.namespaces[tenant{r.Service.Namespace, family}]
	if h := a.services[r.Service]; h != nil {
		for _, addr := range h.all() {
			if FamilyOf(addr) == family && a.poolOf(addr) == p && !a.otherOf(r, addr) {
				used--
			}
		}
	}
	return used < limit
}

// otherOf tells whether another Service of the namespace has the address too.
func (a *Allocator) otherOf(r *Request, addr netip.Addr) bool {
	for _, user := range a.holders[addr] {
		if user != r.Service && user.Namespace == r.Service.Namespace {
			return true
		}
	}
	return false
}
