// Package explain says of a Service whether it works, of what that consists, and what is wrong first. It is pure: it derives from a snapshot
// of the cluster, with the functions that controller and speakers decide by, what they must have decided.
package explain

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

// Verdict says whether a Service works.
type Verdict string

// The verdicts.
const (
	Works   Verdict = "works"
	Wrong   Verdict = "wrong"
	NotOurs Verdict = "notOurs" // Steelyard has nothing to do with it
	Unknown Verdict = "unknown" // nothing wrong was found, but not all that matters could be read
)

// Explanation is what there is to say of one Service.
type Explanation struct {
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"`
	Verdict   Verdict `json:"verdict"`
	// Wrong is what to mend first; nil unless the verdict is Wrong or NotOurs.
	Wrong *Finding `json:"wrong,omitempty"`
	// Also are other findings, the more important ones first.
	Also []Finding `json:"also,omitempty"`
	// Condition is steelyard.io/AddressAssigned.
	Condition *metav1.Condition `json:"condition,omitempty"`
	Policy    string            `json:"externalTrafficPolicy,omitempty"`
	Endpoints []Endpoints       `json:"endpoints,omitempty"`
	Addresses []Address         `json:"addresses,omitempty"`
	// Dataplane is the mode of the speakers' rules.
	Dataplane string `json:"dataplane,omitempty"`
	// NotKnown is what could not be read.
	NotKnown []cluster.Gap `json:"notKnown,omitempty"`
}

// Finding is something that is not as it should be.
type Finding struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Mend is what to do, one way or step each; empty if the message says so itself.
	Mend []string `json:"mend,omitempty"`
}

// Endpoints are those of a Service on one node, which is "" for those that name none.
type Endpoints struct {
	Node       string `json:"node"`
	Serving    int    `json:"serving"`
	NotServing int    `json:"notServing"`
}

// Address is one address of a Service.
type Address struct {
	Address netip.Addr `json:"address"`
	// Pool is "" for an address that no pool has, or that nobody knows the pool of.
	Pool              string   `json:"pool,omitempty"`
	L2Advertisements  []string `json:"l2Advertisements,omitempty"`
	BGPAdvertisements []string `json:"bgpAdvertisements,omitempty"`
	Nodes             []Node   `json:"nodes,omitempty"`
	// RefusedLayer2 is why no advertisement on the local network is for the address.
	RefusedLayer2 announce.Reason `json:"refusedLayer2,omitempty"`
}

// Node is what a node makes of an address: as its speaker says, or else as it must be.
type Node struct {
	Node      string      `json:"node"`
	Endpoints int         `json:"endpoints"`
	Layer2    view.Layer2 `json:"layer2"`
	BGP       view.BGP    `json:"bgp"`
	// Down are those of BGP.Peers to which the session is not up.
	Down []string `json:"down,omitempty"`
	// Carried: the rules for the address are in the kernel; nil if that is not known.
	Carried *bool `json:"carried,omitempty"`
	// Live: the node's speaker runs.
	Live bool `json:"live"`
}

// facts are what a Service is explained by.
type facts struct {
	*cluster.Snapshot
	cfg   *config.Config
	svc   *corev1.Service
	spec  announce.Service
	nodes []announce.Node
	views map[string]view.Service
}

// Service explains the Service of that name; views are what speakers say of it, by node. It returns false if there is no such Service.
func Service(s *cluster.Snapshot, namespace, name string, views map[string]view.Service) (*Explanation, bool) {
	i := slices.IndexFunc(s.Services, func(svc corev1.Service) bool { return svc.Namespace == namespace && svc.Name == name })
	if i < 0 {
		return nil, false
	}
	svc := &s.Services[i]
	e := &Explanation{Namespace: namespace, Name: name, NotKnown: s.Gaps, Dataplane: s.Dataplane()}
	e.Condition = meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAddressAssigned)
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		e.Policy = string(svc.Spec.ExternalTrafficPolicy)
	}
	e.Endpoints = endpoints(s, svc)

	f := &facts{Snapshot: s, svc: svc, views: views, spec: announce.ServiceOf(svc)}
	f.cfg, _ = config.Parse(s.Resources)
	f.nodes = liveNodes(s, views)
	f.spec.Serving = f.serving(e.Endpoints)
	if announce.Ours(svc, s.Class()) { // else the addresses are somebody else's
		for _, a := range assign.Addresses(svc) {
			e.Addresses = append(e.Addresses, f.address(a, e.Endpoints))
		}
	}
	e.judge(diagnose(f, e))
	return e, true
}

// judge takes the findings, the first to mend first.
func (e *Explanation) judge(findings []ranked) {
	e.Verdict = Works
	if len(findings) > 0 && findings[0].rank < degraded {
		e.Verdict, e.Wrong = Wrong, &findings[0].Finding
		if findings[0].rank == notOurs {
			e.Verdict = NotOurs
		}
		findings = findings[1:]
	} else if !e.knows(essential...) {
		e.Verdict = Unknown
	}
	for _, f := range findings {
		e.Also = append(e.Also, f.Finding)
	}
}

// knows tells whether all of these resources could be read.
func (e *Explanation) knows(resources ...string) bool {
	return !slices.ContainsFunc(e.NotKnown, func(g cluster.Gap) bool { return slices.Contains(resources, g.Resource) })
}

// essential are the resources without which nobody can say that a Service works.
var essential = []string{
	cluster.EndpointSlices, cluster.IPAddressPools, cluster.L2Advertisements, cluster.BGPAdvertisements, cluster.Announcements,
}
