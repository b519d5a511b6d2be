// Package config turns the custom resources into one validated Config. What is wrong with an object becomes a Fault of that
// object, and everything else goes on working.
package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// Resources is what a Config is made of, in any order.
type Resources struct {
	Pools             []v1beta1.IPAddressPool
	Reservations      []v1beta1.AddressReservation
	L2Advertisements  []v1beta1.L2Advertisement
	BGPAdvertisements []v1beta1.BGPAdvertisement
	BGPPeers          []v1beta1.BGPPeer
	BFDProfiles       []v1beta1.BFDProfile
	Communities       []v1beta1.Community
	// Namespace is the installation's; "" when it is not known.
	Namespace string
	// Secrets are those of the installation's namespace, by name; nil when they are not known, and then nothing is said about them. Only
	// the type and the entry "password" matter.
	Secrets map[string]corev1.Secret
	// Nodes is nil when they are not known; then nothing is said about nodes.
	Nodes []corev1.Node
}

// Config is the validated configuration. It is immutable.
type Config struct {
	Pools             []*Pool             // sorted by name
	Reservations      []*Reservation      // sorted by name
	L2Advertisements  []*L2Advertisement  // sorted by name
	BGPAdvertisements []*BGPAdvertisement // oldest first, then by name
	BGPPeers          []*BGPPeer          // sorted by name
}

// Pool is an IPAddressPool.
type Pool struct {
	Name   string
	Labels labels.Set
	// Ranges are disjoint, not adjacent, ascending, IPv4 first. No other pool has any of their addresses.
	Ranges        []Range
	AutoAssign    bool
	AvoidBuggyIPs bool
	// Allocation is nil for a pool that every Service may use.
	Allocation *ServiceAllocation
	// Strategy says which free address goes first; never empty.
	Strategy v1beta1.AllocationStrategy
	// Quotas limit namespaces; the first that matches applies.
	Quotas []Quota
	// ShareAcrossNamespaces: Services of different namespaces may share an address.
	ShareAcrossNamespaces bool
}

// Quota limits the addresses of each namespace that it matches.
type Quota struct {
	// Namespaces and Selectors are alternatives; with neither, it matches all.
	Namespaces []string
	Selectors  []labels.Selector
	// Addresses is how many of each family a namespace may have.
	Addresses int
}

// Reservation is an AddressReservation.
type Reservation struct {
	Name string
	// Ranges are disjoint, not adjacent, ascending, IPv4 first. No other reservation has any of their addresses.
	Ranges []Range
	// Common is what an older one has and both keep for their Services, which share it.
	Common []Range
	// Namespace and Service are whom they are for: without a Service, all of the namespace; without a namespace, nobody.
	Namespace, Service string
}

// ServiceAllocation says which Services may use a pool.
type ServiceAllocation struct {
	// Priority orders pools: the lowest goes first, 0 last.
	Priority           int
	Namespaces         []string
	NamespaceSelectors []labels.Selector
	ServiceSelectors   []labels.Selector
}

// L2Advertisement is an L2Advertisement with its pools resolved.
type L2Advertisement struct {
	Name string
	// Pools are the names of the pools that it announces, sorted; none when it selects none.
	Pools []string
	// Nodes and Services are alternatives; empty matches everything.
	Nodes, Services []labels.Selector
	Preferred       []PreferredNodes
	// Interfaces is empty for all.
	Interfaces []string
}

// PreferredNodes adds its weight to the nodes that it matches.
type PreferredNodes struct {
	Weight   int
	Selector labels.Selector
}

// Parse makes the configuration of the resources. It never fails as a whole: what can't be used is left out of the Config and
// is reported as a Fault of the object that it stands in. Equal resources in another order give an equal result.
func Parse(r Resources) (*Config, []Fault) {
	cfg := &Config{}
	pools, allotted, faults := parsePools(r.Pools)
	reservations, reservationFaults := parseReservations(r.Reservations, allotted)
	cfg.Pools, cfg.Reservations = pools, reservations
	faults = append(faults, reservationFaults...)
	faults = append(faults, nodeAddressFaults(cfg, r.Nodes)...)
	for i := range r.L2Advertisements {
		ad, adFaults := parseL2Advertisement(&r.L2Advertisements[i], cfg.Pools, r.Nodes)
		cfg.L2Advertisements = append(cfg.L2Advertisements, ad)
		faults = append(faults, adFaults...)
	}
	slices.SortFunc(cfg.L2Advertisements, func(a, b *L2Advertisement) int { return strings.Compare(a.Name, b.Name) })
	faults = append(faults, cfg.parseBGP(&r)...)
	slices.SortStableFunc(faults, Fault.compare)
	return cfg, faults
}

// Pool returns the pool with that name, or nil.
func (c *Config) Pool(name string) *Pool {
	i, ok := slices.BinarySearchFunc(c.Pools, name, func(p *Pool, name string) int { return strings.Compare(p.Name, name) })
	if !ok {
		return nil
	}
	return c.Pools[i]
}

// PoolOf returns the pool that has the address, or nil.
func (c *Config) PoolOf(a netip.Addr) *Pool {
	for _, p := range c.Pools {
		if p.Contains(a) {
			return p
		}
	}
	return nil
}

// Contains tells whether the address is one of the pool's.
func (p *Pool) Contains(a netip.Addr) bool { return contains(p.Ranges, a) }

// Allows tells whether a Service with these labels, in this namespace, may use the pool.
func (a *ServiceAllocation) Allows(namespace string, namespaceLabels, serviceLabels labels.Set) bool {
	anyNamespace := len(a.Namespaces) == 0 && len(a.NamespaceSelectors) == 0
	return (anyNamespace || slices.Contains(a.Namespaces, namespace) || anyMatches(a.NamespaceSelectors, namespaceLabels)) &&
		matches(a.ServiceSelectors, serviceLabels)
}

// Quota returns how many addresses of each family the Services of a namespace may have, and whether there is a limit.
func (p *Pool) Quota(namespace string, namespaceLabels labels.Set) (addresses int, limited bool) {
	for _, q := range p.Quotas {
		if len(q.Namespaces) == 0 && len(q.Selectors) == 0 || slices.Contains(q.Namespaces, namespace) || anyMatches(q.Selectors, namespaceLabels) {
			return q.Addresses, true
		}
	}
	return 0, false
}

// For tells whether a Service may have the reserved addresses.
func (r *Reservation) For(namespace, service string) bool {
	return r.Namespace != "" && r.Namespace == namespace && (r.Service == "" || r.Service == service)
}

// SelectsNode tells whether a node with these labels may announce.
func (a *L2Advertisement) SelectsNode(node labels.Set) bool {
	return matches(a.Nodes, node)
}

// SelectsService tells whether a Service with these labels is announced.
func (a *L2Advertisement) SelectsService(service labels.Set) bool {
	return matches(a.Services, service)
}

// Weight returns how much this advertisement prefers a node with these labels; 0 for a node that it doesn't select.
func (a *L2Advertisement) Weight(node labels.Set) int {
	weight := 0
	if !a.SelectsNode(node) {
		return weight
	}
	for _, p := range a.Preferred {
		if p.Selector.Matches(node) {
			weight += p.Weight
		}
	}
	return weight
}

// oldestFirst returns the objects by age, and by name where they are of one age.
func oldestFirst[T any, P interface {
	*T
	metav1.Object
}](objects []T) []P {
	var out []P
	for i := range objects {
		out = append(out, &objects[i])
	}
	slices.SortFunc(out, func(a, b P) int {
		return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), strings.Compare(a.GetName(), b.GetName()))
	})
	return out
}
