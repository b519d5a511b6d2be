package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

const (
	fullMend  = "widen spec.addresses of an IPAddressPool, add a pool, or delete a Service that no longer needs its address"
	quotaMend = "raise the quota, ask for another pool, or delete a Service of the namespace that no longer needs its address"
	mostPools = 5 // how many a message names
)

// shortfall tells why none of the pools has an address of the missing families for the Service.
func (a *Allocator) shortfall(r *Request, pools []*pool, missing []Family) *refusal {
	if len(pools) == 0 {
		return &refusal{NoPoolForService, fmt.Sprintf(
			"no pool gives this Service an address unasked, because spec.autoAssign is false or spec.serviceAllocation is for other Services in %s: ask for a pool with annotation steelyard.io/address-pool, or change one of them",
			list(a.pools))}
	}
	lacking := slices.DeleteFunc(slices.Clone(missing), func(f Family) bool {
		return slices.ContainsFunc(pools, func(p *pool) bool { return p.has(f) })
	})
	if len(lacking) == len(missing) || len(lacking) > 0 && r.Policy != corev1.IPFamilyPolicyPreferDualStack {
		have := "has"
		if len(pools) > 1 {
			have = "have"
		}
		return &refusal{FamilyUnavailable, fmt.Sprintf("%s %s no %s addresses: add a range of them to spec.addresses", poolsText(pools), have, either(lacking))}
	}
	var full, limited, users []string
	for _, p := range pools {
		for _, f := range missing {
			if len(full)+len(limited) >= mostPools || !p.has(f) {
				continue
			}
			if _, free := p.next(r.Service, f); free {
				limited = append(limited, a.quotaText(r, p, f))
				continue
			}
			full = append(full, p.fullText(f))
			users = a.addLowestUsers(users, r, p, f)
		}
	}
	mend := fullMend
	if len(users) > 0 {
		mend += ", such as " + anyOf(users)
	}
	switch {
	case len(full) == 0:
		return &refusal{QuotaExceeded, fmt.Sprintf("%s: %s", strings.Join(limited, "; "), quotaMend)}
	case len(limited) > 0:
		return &refusal{QuotaExceeded, fmt.Sprintf("%s; %s: raise the quota, %s", strings.Join(limited, "; "), strings.Join(full, "; "), mend)}
	}
	return &refusal{PoolExhausted, fmt.Sprintf("%s: %s", strings.Join(full, "; "), mend)}
}

// fullText says that a pool has no free address of a family.
func (p *pool) fullText(f Family) string {
	switch {
	case p.total[f] == 0 && len(p.reservations) == 0:
		return fmt.Sprintf("pool %s avoids all its %s addresses, by spec.avoidBuggyIPs", p.Name, f)
	case p.total[f] == 0:
		return fmt.Sprintf("all %s addresses of pool %s are in AddressReservations", f, p.Name)
	case p.setAside[f] > 0:
		return fmt.Sprintf("pool %s is full, %d of %d %s addresses are in use and the rest is reserved for others", p.Name, p.used[f], p.total[f], f)
	}
	return fmt.Sprintf("pool %s is full, %d of %d %s addresses are in use", p.Name, p.used[f], p.total[f], f)
}

// addLowestUsers adds some other Services that have the lowest addresses of a full pool, and could make room.
func (a *Allocator) addLowestUsers(users []string, r *Request, p *pool, f Family) []string {
	const enough, effort = 3, 32
	steps := 0
	for _, span := range p.Ranges {
		if FamilyOf(span.From) != f {
			continue
		}
		for addr := span.From; span.Contains(addr) && len(users) < enough && steps < effort; addr = addr.Next() {
			steps++
			if piece := p.piece(addr); piece != nil {
				addr = piece.To
				continue
			}
			for _, user := range a.holders[addr] {
				name := user.String()
				if len(users) < enough && user != r.Service && !slices.Contains(users, name) {
					users = append(users, name)
				}
			}
		}
	}
	return users
}

// quotaText says that a namespace has all that it may have of a pool.
func (a *Allocator) quotaText(r *Request, p *pool, f Family) string {
	limit, _ := p.Quota(r.Service.Namespace, r.NamespaceLabels)
	return fmt.Sprintf("namespace %s may have %d %s addresses of pool %s by spec.namespaceQuotas, and has %d",
		r.Service.Namespace, limit, f, p.Name, p.namespaces[tenant{r.Service.Namespace, f}])
}

// beneficiary tells for whom a reservation keeps its addresses.
func beneficiary(by *config.Reservation) string {
	switch {
	case by.Namespace == "":
		return "from all Services"
	case by.Service == "":
		return "for namespace " + by.Namespace
	}
	return "for Service " + types.NamespacedName{Namespace: by.Namespace, Name: by.Service}.String()
}

// result puts the decision into words. The Service waits if it has none of what it asks for now.
func (a *Allocator) result(r *Request, addrs []netip.Addr, refused *refusal, waits bool) Result {
	res := Result{Addrs: slices.Clone(addrs), Lost: a.lost(r, addrs, refused)}
	switch {
	case waits:
		res.Reason, res.Message = refused.reason, refused.message
		if len(addrs) > 0 {
			res.Message += fmt.Sprintf("; until then the Service keeps %s", join(addrs))
		}
	case refused != nil:
		res.Reason = AssignedOneFamily
		res.Message = fmt.Sprintf("%s; no %s address, because %s", a.origin(addrs), r.missing(addrs)[0], refused.message)
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

// lost tells which addresses in the Service's status are not in addrs, and why, unless the refusal of one that it asks for says so.
func (a *Allocator) lost(r *Request, addrs []netip.Addr, refused *refusal) string {
	var lost []string
	for _, addr := range r.Current {
		if slices.Contains(addrs, addr) {
			continue
		}
		p := a.poolOf(addr)
		why := a.obstacle(r, addr)
		switch {
		case refused != nil && strings.Contains(refused.message, fmt.Sprintf("asks for %s,", addr)):
			lost = append(lost, addr.String())
		case why != nil:
			lost = append(lost, fmt.Sprintf("%s, %s", addr, why.fact))
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

func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}

func anyOf(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func either(families []Family) string {
	if len(families) == 2 {
		return fmt.Sprintf("%s and %s", families[0], families[1])
	}
	return string(families[0])
}

func poolsText(pools []*pool) string {
	if len(pools) == 1 {
		return "pool " + pools[0].Name
	}
	return "pools " + list(pools)
}

// list names pools for a message.
func list(pools []*pool) string {
	var names []string
	for _, p := range pools[:min(mostPools, len(pools))] {
		names = append(names, p.Name)
	}
	if n := len(pools) - mostPools; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}
