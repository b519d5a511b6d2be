// Package dataplane decides what this node does with traffic for Services: from Services, EndpointSlices and the node it makes a Model,
// which a Backend puts in the kernel. It is pure: no kernel, no client, no clock.
package dataplane

import (
	"context"
	"net/netip"
	"strconv"
	"time"
)

// Mode says which Services are carried.
type Mode string

// The modes.
const (
	// LoadBalancer carries the load-balancer addresses that Steelyard assigned; the cluster's own proxy carries the rest.
	LoadBalancer Mode = "loadbalancer"
	// Full carries every Service; there is no other proxy.
	Full Mode = "full"
	// Off carries nothing.
	Off Mode = "off"
)

// Family is an IP family.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Protocol is a transport protocol by its IANA number.
type Protocol uint8

// The protocols that Services can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name that Kubernetes has for it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// PortName names a port of a Service.
type PortName struct {
	Service  string // namespace/name
	Port     string // may be empty
	Protocol Protocol
}

// Kind says what sort of place a Frontend is.
type Kind uint8

// The kinds of frontends. All but ClusterIP are external: the external traffic policy holds for them.
const (
	ClusterIP Kind = iota + 1
	NodePort
	ExternalIP
	LoadBalancerIP
)

// Frontend is a place at which clients reach a port of a Service.
type Frontend struct {
	Kind Kind
	Addr netip.Addr // the zero Addr for NodePort, which is open on the addresses that Host says
	Port uint16
}

// Endpoint is a place that serves.
type Endpoint struct {
	Addr  netip.AddrPort
	Local bool // on this node
}

// Action is what happens to new connections.
type Action uint8

// The actions.
const (
	Forward Action = iota + 1
	Reject         // nothing serves it anywhere: the client is told at once
	Drop           // something serves it, but not on this node, and the policy is Local: the client tries another node
)

// Port is what one port of a Service does in one family. A Port is never changed once it is part of a Model; a new one takes its place.
type Port struct {
	Name      PortName
	Family    Family
	Frontends []Frontend // sorted by kind, address and port; each belongs to no other Port of the Model
	// Cluster are the endpoints for traffic that may go to any node, after readiness, the fallback to terminating endpoints (KEP-1669), and
	// topology (KEP-2433, KEP-3015). Local are those on this node, with a fallback of their own, without topology; they are left out
	// where no policy is Local. Both are sorted by address and port, without duplicates. Cluster is empty only if Local is.
	Cluster, Local []Endpoint
	// Serving are, for UDP only, all endpoints that may keep the flows they have: those that serve or are ready, terminating or not, on
	// whatever node. They are sorted, without duplicates.
	Serving []netip.AddrPort
	// InternalLocal and ExternalLocal: the traffic policy is Local.
	InternalLocal, ExternalLocal bool
	// SourceRanges restrict who may use the LoadBalancerIP frontends; nil means everybody. They are masked, sorted, of the Port's family,
	// and none contains another.
	SourceRanges []netip.Prefix
	// OwnSource: the source ranges contain an address of this node, so that its connections to the address are allowed too, whose source
	// is the address itself where it is bound to an interface of the node.
	OwnSource bool
	// Affinity is how long a client that comes again gets the endpoint that it had; 0 for no affinity.
	Affinity time.Duration
}

// HealthCheck is a healthCheckNodePort that this node has to answer.
type HealthCheck struct {
	Port  uint16
	Local int // ready endpoints on this node, counted by address; of two families the larger count, as each pod has both
}

// Host is what holds for all Services on this node.
type Host struct {
	// PodCIDRs and PodInterfaces tell which traffic comes from pods of this node: by source, or by a prefix of the interface's name. With
	// neither, cluster traffic is never masqueraded and pods get no special treatment at external addresses. The PodCIDRs are masked,
	// sorted, and none contains another.
	PodCIDRs      []netip.Prefix
	PodInterfaces string
	// MasqueradeAll masquerades cluster traffic of pods too.
	MasqueradeAll bool
	// NodePortAddrs are the local addresses that node ports are open on, sorted, none of them the loopback's; nil means all but the
	// loopback's, empty none.
	NodePortAddrs []netip.Addr
	// LocalhostNodePorts opens node ports on the IPv4 loopback too (iptables only: it needs route_localnet).
	LocalhostNodePorts bool
}

// Model is what this node's rules have to do.
type Model struct {
	Host         Host
	Ports        map[string][]*Port     // by the Service's namespace/name
	HealthChecks map[string]HealthCheck // by the Service's namespace/name
}

// Backend keeps rules in the kernel. It is not safe for concurrent use.
type Backend interface {
	// Sync makes the kernel's rules agree with the model. changed names the Services that may differ from the last call that succeeded;
	// nil means that nothing may be taken for granted: what is in the kernel is compared, stale rules go, and no flow is disturbed. After
	// an error the caller calls again with nil.
	Sync(ctx context.Context, m *Model, changed []string) error
	// Intact returns nil while the rules that all others hang on are where they have to be, otherwise what is wrong. It is cheap.
	Intact(ctx context.Context) error
	// Remove takes every rule of this backend, of any mode, out of the kernel, and nothing else.
	Remove(ctx context.Context) error
}
