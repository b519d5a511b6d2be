package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// Reasons that only an explanation has.
const (
	NotLoadBalancer  = "NotLoadBalancer"
	OtherClass       = "OtherClass"
	BeingDeleted     = "BeingDeleted"
	NoClusterAddress = "NoClusterAddress"
	// NotLookedAt: no controller has said anything of the Service.
	NotLookedAt = "NotLookedAt"
	// NoPool: the Service has an address that is in no pool.
	NoPool = "NoPool"
	// NotAnnounced: nodes may announce the address, and none does.
	NotAnnounced = "NotAnnounced"
	// SeveralOwners: more than one node answers for the address on the local network.
	SeveralOwners = "SeveralOwners"
)

// rank orders findings: what is wrong with the first is often why the later ones are wrong.
type rank int

const (
	notOurs rank = iota
	waiting
	noPool
	noAdvertisement
	noEndpoint
	noLocalEndpoint
	noNode
	sessionDown
	conflict
	notCarried
	speakerDead
	notAnnounced
	complained
	degraded // it works all the same
)

// ranked is a finding about addresses, for which a %s stands in its message.
type ranked struct {
	Finding
	rank  rank
	about []netip.Addr
}

// diagnose returns all findings, the first to mend first.
func diagnose(f *facts, e *Explanation) []ranked {
	if r := f.notServed(); r != nil {
		return []ranked{*r}
	}
	found := f.waiting(e)
	if f.Knows(cluster.IPAddressPools) {
		for i := range e.Addresses {
			found = append(found, f.addressFindings(&e.Addresses[i], e)...)
		}
	}
	found = merged(append(found, f.complaints(len(found) > 0)...))
	if slices.ContainsFunc(found, func(r ranked) bool { return r.rank == conflict }) {
		found = slices.DeleteFunc(found, func(r ranked) bool { return r.rank == notAnnounced }) // because of the conflict
	}
	slices.SortStableFunc(found, compareFindings)
	return found
}

// compareFindings orders by rank, and within one by what they say, so that equal snapshots are explained equally.
func compareFindings(a, b ranked) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.Reason, b.Reason), strings.Compare(a.Message, b.Message))
}

// merged makes one finding of those that say the same of several addresses, and puts the addresses in.
func merged(found []ranked) []ranked {
	var out []ranked
	for _, r := range found {
		i := slices.IndexFunc(out, func(o ranked) bool {
			return o.rank == r.rank && o.Reason == r.Reason && o.Message == r.Message && slices.Equal(o.Mend, r.Mend)
		})
		if i < 0 {
			out = append(out, r)
		} else {
			out[i].about = append(out[i].about, r.about...)
		}
	}
	for i := range out {
		if len(out[i].about) > 0 {
			out[i].Message = strings.ReplaceAll(out[i].Message, "%s", join(out[i].about))
		}
	}
	return out
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " and ")
}

// notServed finds why Steelyard has nothing to do for the Service.
func (f *facts) notServed() *ranked {
	svc, class := f.svc, f.Class()
	say := func(rank rank, reason, message, mend string) *ranked {
		return &ranked{rank: rank, Finding: Finding{Reason: reason, Message: message, Mend: []string{mend}}}
	}
	switch {
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return say(notOurs, NotLoadBalancer, fmt.Sprintf("spec.type is %s, and only Services of type LoadBalancer get an address", svc.Spec.Type), "set spec.type: LoadBalancer")
	case svc.Spec.LoadBalancerClass != nil && (class == "" || *svc.Spec.LoadBalancerClass != class):
		mend := fmt.Sprintf("delete the Service and create it with spec.loadBalancerClass: %s, or without one: the class of a Service can't be changed", class)
		if class == "" {
			mend = "delete the Service and create it without a class, which can't be changed; or set loadBalancerClass in the chart's values"
		}
		return say(notOurs, OtherClass, fmt.Sprintf("spec.loadBalancerClass is %s, which Steelyard does not serve", *svc.Spec.LoadBalancerClass), mend)
	case svc.DeletionTimestamp != nil:
		return say(waiting, BeingDeleted, "the Service is being deleted, so no node announces it", "see what it waits for: metadata.finalizers")
	case !assign.Serves(svc, class):
		return say(waiting, NoClusterAddress, "the Service has no cluster address (spec.clusterIP), so there is nothing to balance", "a Service of type LoadBalancer can't be headless: take clusterIP: None out")
	}
	return nil
}

// waiting finds what the controller says of the Service's addresses.
func (f *facts) waiting(e *Explanation) []ranked {
	c := e.Condition
	switch {
	case c == nil || c.Status == metav1.ConditionTrue && len(e.Addresses) == 0:
		return []ranked{{rank: waiting, Finding: f.notLookedAt()}}
	case c.Status == metav1.ConditionFalse:
		return []ranked{{rank: waiting, Finding: Finding{Reason: c.Reason, Message: c.Message}}}
	case c.Reason == string(ipam.AssignedOneFamily):
		return []ranked{{rank: degraded, Finding: Finding{Reason: c.Reason, Message: c.Message}}}
	}
	return nil
}

func (f *facts) notLookedAt() Finding {
	ready := f.readyControllers()
	if f.Knows(cluster.Pods) && ready == 0 {
		return Finding{Reason: NotLookedAt, Message: fmt.Sprintf("no controller works, so nobody gives the Service an address: %d pods are there, none is ready", len(f.Controllers)),
			Mend: []string{"see why: kubectl get pods -A -l app.kubernetes.io/name=steelyard,app.kubernetes.io/component=controller, then kubectl logs and kubectl describe"}}
	}
	return Finding{Reason: NotLookedAt, Message: "the controller has said nothing of the Service: it has no condition " + v1beta1.ConditionAddressAssigned,
		Mend: []string{"look again in a few seconds; if nothing has changed, read the log of the controller that leads (steelyardctl status names it)"}}
}

func (f *facts) readyControllers() int {
	n := 0
	for i := range f.Controllers {
		if ready(&f.Controllers[i]) {
			n++
		}
	}
	return n
}

// addressFindings finds what is wrong with one address.
func (f *facts) addressFindings(a *Address, e *Explanation) []ranked {
	if a.Pool == "" {
		if c := e.Condition; c != nil && c.Reason == string(ipam.NoPools) {
			return nil // the condition says so of all addresses, which stay
		}
		return a.say(noPool, NoPool, "%s is in no pool, so no node announces it",
			"put the address into a pool (spec.addresses), or look again in a few seconds: the controller gives the Service another address")
	}
	if !f.Knows(cluster.L2Advertisements, cluster.BGPAdvertisements) {
		return nil
	}
	if len(a.L2Advertisements)+len(a.BGPAdvertisements) == 0 {
		words := announce.Say(a.RefusedLayer2)
		return a.say(noAdvertisement, string(a.RefusedLayer2), fmt.Sprintf("nobody may announce %%s of pool %s: %s", a.Pool, words.What), words.Mend)
	}
	if len(f.spec.Serving) == 0 {
		return []ranked{{rank: noEndpoint, Finding: f.noEndpoint(e)}}
	}
	var found []ranked
	if len(a.L2Advertisements) > 0 {
		found = f.layer2Findings(a)
	} else if a.RefusedLayer2 == announce.SharedWithServiceSelector {
		words := announce.Say(a.RefusedLayer2)
		found = a.say(degraded, string(a.RefusedLayer2), "%s is announced to routers only: "+words.What, words.Mend)
	}
	if len(a.BGPAdvertisements) > 0 {
		found = append(found, f.bgpFindings(a)...)
	}
	return found
}

func (f *facts) noEndpoint(e *Explanation) Finding {
	words := announce.Say(announce.NoServingEndpoint)
	out := Finding{Reason: string(announce.NoServingEndpoint), Mend: []string{words.Mend}}
	n := 0
	for _, on := range e.Endpoints {
		n += on.NotServing
	}
	selector := labels.Set(f.svc.Spec.Selector).String()
	switch {
	case n > 0:
		out.Message = fmt.Sprintf("no endpoint of the Service serves, so no node announces it: there are %d, and none is ready", n)
		out.Mend = []string{fmt.Sprintf("see why the pods are not ready: kubectl -n %s get pods -o wide -l '%s'", f.svc.Namespace, selector)}
	case selector == "":
		out.Message = "the Service has no endpoints, so no node announces it, and no spec.selector by which Kubernetes finds some"
		out.Mend = []string{"set spec.selector, or write EndpointSlices with the label kubernetes.io/service-name=" + f.svc.Name}
	default:
		out.Message = "the Service has no endpoints, so no node announces it: no pod matches its spec.selector " + selector
		out.Mend = []string{fmt.Sprintf("compare with the pods' labels: kubectl -n %s get pods --show-labels", f.svc.Namespace)}
	}
	return out
}

// complaints finds what the speakers say of the Service; what is no conflict they say of what is found here already, if anything is.
func (f *facts) complaints(found bool) []ranked {
	c := meta.FindStatusCondition(f.svc.Status.Conditions, v1beta1.ConditionAnnounced)
	if c == nil || c.Status != metav1.ConditionFalse {
		return nil
	}
	r := ranked{rank: complained, Finding: Finding{Reason: c.Reason, Message: c.Message}}
	if c.Reason == string(announce.AddressConflict) {
		r.rank = conflict
		r.Mend = []string{announce.Say(announce.AddressConflict).Mend}
	} else if found {
		return nil
	}
	return []ranked{r}
}

// lacksRules tells whether the rules for an address are known not to be in a kernel.
func lacksRules(carried *bool) bool { return !ptr.Deref(carried, true) }
