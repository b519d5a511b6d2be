package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Family is an IP family.
type Family = corev1.IPFamily

const (
	ipv4 = corev1.IPv4Protocol
	ipv6 = corev1.IPv6Protocol
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// Request is what a Service asks for and what it has.
type Request struct {
	Service types.NamespacedName
	// Labels and NamespaceLabels are for the serviceAllocation of pools.
	Labels, NamespaceLabels labels.Set
	// Families are those of the Service's cluster addresses, the primary one first. At least one.
	Families []Family
	Policy   corev1.IPFamilyPolicy
	// Addresses are the places of the Service that ask for addresses; they must not contradict each other.
	Addresses []Wish
	// Pool asks for a pool by name.
	Pool Wish
	// Current is the addresses in the Service's status.
	Current []netip.Addr
	Sharing Sharing
}

// Wish is something that the Service asks for. An empty value asks for nothing.
type Wish struct {
	Value  string
	Source string // where it stands, for messages: "annotation steelyard.io/address-pool"
}

func (r *Request) has(f Family) bool { return slices.Contains(r.Families, f) }

// missing returns the Service's families that are not among the addresses'.
func (r *Request) missing(addrs []netip.Addr) []Family {
	return slices.DeleteFunc(slices.Clone(r.Families), func(f Family) bool { return hasFamily(addrs, f) })
}

func (r *Request) dualStack() bool { return len(r.Families) == 2 }

// requestedAddresses returns the addresses that the Service asks for, at most one of each of its families, IPv4 first.
func (r *Request) requestedAddresses() ([]netip.Addr, Wish, *refusal) {
	var addrs []netip.Addr
	var source Wish
	for _, w := range r.Addresses {
		if strings.TrimSpace(w.Value) == "" {
			continue
		}
		parsed, bad := parseAddresses(w)
		if bad != nil {
			return nil, w, bad
		}
		if source.Source != "" && !slices.Equal(addrs, parsed) {
			return nil, w, &refusal{InvalidRequest, fmt.Sprintf("%s asks for %s and %s for %s: remove one of the two",
				source.Source, join(addrs), w.Source, join(parsed))}
		}
		if source.Source == "" {
			addrs, source = parsed, w
		}
	}
	for _, a := range addrs {
		if !r.has(FamilyOf(a)) {
			return nil, source, &refusal{WrongFamily, fmt.Sprintf(
				"%s asks for %s, but the Service has cluster addresses of %s only: ask for one of that family, or change spec.ipFamilyPolicy and spec.ipFamilies",
				source.Source, a, r.Families[0])}
		}
	}
	return addrs, source, nil
}

// parseAddresses reads a list of addresses separated by commas, at most one of each family.
func parseAddresses(w Wish) ([]netip.Addr, *refusal) {
	var addrs []netip.Addr
	for text := range strings.SplitSeq(w.Value, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || a.Zone() != "" {
			return nil, &refusal{InvalidRequest, fmt.Sprintf(
				"%s: %q is not an IP address: write one, or an IPv4 and an IPv6 one with a comma between them, such as 192.0.2.10,2001:db8::10",
				w.Source, shortened(text))}
		}
		a = a.Unmap()
		for _, b := range addrs {
			if FamilyOf(a) == FamilyOf(b) {
				return nil, &refusal{InvalidRequest, fmt.Sprintf(
					"%s asks for two %s addresses, %s and %s: a Service has one of each family at most, remove one",
					w.Source, FamilyOf(a), b, a)}
			}
		}
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}

// requestedPools returns the pools that the Service asks for by name, in the order of their names; nil if it asks for none.
func (a *Allocator) requestedPools(r *Request) ([]*pool, *refusal) {
	if strings.TrimSpace(r.Pool.Value) == "" {
		return nil, nil
	}
	var named []*pool
	for text := range strings.SplitSeq(r.Pool.Value, ",") {
		p, refused := a.requestedPool(r, strings.TrimSpace(text))
		if refused != nil {
			return nil, refused
		}
		if !slices.Contains(named, p) {
			named = append(named, p)
		}
	}
	if len(named) > 2 {
		return nil, &refusal{InvalidRequest, fmt.Sprintf(
			"%s asks for %d pools, %s: name one, or two with a comma between them, one for each family", r.Pool.Source, len(named), list(named))}
	}
	slices.SortFunc(named, func(p, q *pool) int { return strings.Compare(p.Name, q.Name) })
	return named, nil
}

func (a *Allocator) requestedPool(r *Request, name string) (*pool, *refusal) {
	if i := slices.IndexFunc(a.pools, func(p *pool) bool { return p.Name == name }); i >= 0 {
		p := a.pools[i]
		if !p.allows(r) {
			return nil, &refusal{PoolNotAllowed, fmt.Sprintf(
				"%s asks for pool %s, whose spec.serviceAllocation does not allow this Service: ask for another pool, or add the Service's namespace or labels there",
				r.Pool.Source, p.Name)}
		}
		return p, nil
	}
	mend := "create that IPAddressPool, or name one of " + list(a.pools)
	for _, p := range a.pools {
		if strings.EqualFold(p.Name, name) {
			mend = fmt.Sprintf("write %s", p.Name)
		}
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, &refusal{InvalidRequest, fmt.Sprintf(
			"%s: %q can't be the name of a pool, which has small letters, digits, dashes and dots only: %s", r.Pool.Source, shortened(name), mend)}
	}
	return nil, &refusal{UnknownPool, fmt.Sprintf("%s: there is no IPAddressPool %s: %s", r.Pool.Source, shortened(name), mend)}
}

// shortened keeps a message readable whatever stands in an annotation.
func shortened(s string) string {
	const enough = 64
	if len(s) <= enough {
		return s
	}
	return strings.ToValidUTF8(s[:enough], "") + "..."
}
