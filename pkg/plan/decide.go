package plan

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// decision is what the controller makes of a Service.
type decision struct {
	addrs   []netip.Addr
	reason  ipam.Reason
	message string
}

// controller does what the controller would, until nothing is left to do.
type controller struct {
	class      string
	allocator  *ipam.Allocator
	namespaces map[string]labels.Set
	services   map[types.NamespacedName]*corev1.Service // with the statuses that are decided
	oldest     []types.NamespacedName
	reasons    map[types.NamespacedName]ipam.Reason // of the conditions
	decisions  map[types.NamespacedName]decision
}

// decide returns what the controller decides when the configuration changes, for the Services that it looks at then.
func decide(s *cluster.Snapshot, before, after *config.Config) map[types.NamespacedName]decision {
	c := &controller{
		class: s.Class(), allocator: ipam.New(), namespaces: map[string]labels.Set{},
		services: map[types.NamespacedName]*corev1.Service{}, reasons: map[types.NamespacedName]ipam.Reason{},
		decisions: map[types.NamespacedName]decision{},
	}
	for i := range s.Namespaces {
		c.namespaces[s.Namespaces[i].Name] = s.Namespaces[i].Labels
	}
	for i := range s.Services {
		svc := s.Services[i].DeepCopy()
		if !assign.Serves(svc, c.class) {
			continue
		}
		name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
		c.services[name] = svc
		c.oldest = append(c.oldest, name)
		if condition := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAddressAssigned); condition != nil {
			c.reasons[name] = ipam.Reason(condition.Reason)
		}
	}
	slices.SortFunc(c.oldest, func(a, b types.NamespacedName) int {
		return assign.CompareAge(c.services[a].CreationTimestamp, a.String(), c.services[b].CreationTimestamp, b.String())
	})

	c.allocator.SetPools(before.Pools, before.Reservations)
	for i := range s.Pools {
		c.allocator.Remember(s.Pools[i].Name, addresses(s.Pools[i].Status.Released))
	}
	assign.Adopt(s.Services, c.class, c.allocator)
	changed, concerned := c.allocator.SetPools(after.Pools, after.Reservations)
	if !changed {
		return nil
	}
	// Those whose address is gone choose before those that wait for one, and both by age.
	touched := map[types.NamespacedName]bool{}
	for _, name := range concerned {
		touched[name] = true
	}
	round := c.all(func(name types.NamespacedName) bool { return touched[name] })
	round = append(round, c.all(func(name types.NamespacedName) bool { return !touched[name] && c.waits(name) })...)
	for len(round) > 0 {
		freed := false
		for _, name := range round {
			freed = c.reconcile(name) || freed
		}
		round = nil
		if freed {
			round = c.all(c.waits)
		}
	}
	return c.decisions
}

// all returns the Services that are wanted, the oldest first.
func (c *controller) all(wanted func(types.NamespacedName) bool) []types.NamespacedName {
	return slices.DeleteFunc(slices.Clone(c.oldest), func(name types.NamespacedName) bool { return !wanted(name) })
}

// waits tells whether the Service would take an address, or one more, if there were one.
func (c *controller) waits(name types.NamespacedName) bool { return c.reasons[name] != ipam.Assigned }

// reconcile decides what the Service has, and tells whether another one may have more by that.
func (c *controller) reconcile(name types.NamespacedName) (freed bool) {
	svc := c.services[name]
	// A condition wants a time, which nobody looks at here.
	d := assign.Decide(svc, c.class, c.namespaces[name.Namespace], c.allocator, metav1.Unix(0, 0))
	svc.Status = d.Status
	c.reasons[name] = d.Reason
	c.note(name, d)
	return c.allocator.Settle(name, assign.Addresses(svc)) || d.Eased
}

// note keeps what the Service has in the end, and the words for what it lost on the way there.
func (c *controller) note(name types.NamespacedName, d assign.Decision) {
	next := c.decisions[name]
	condition := meta.FindStatusCondition(d.Status.Conditions, v1beta1.ConditionAddressAssigned)
	switch {
	case d.Event != nil && next.message != "":
		next.message = d.Event.Message + "; before that: " + next.message
	case d.Event != nil:
		next.message = d.Event.Message
	case condition != nil && next.reason != d.Reason:
		next.message = condition.Message
	}
	next.addrs, next.reason = assign.Addresses(c.services[name]), d.Reason
	c.decisions[name] = next
}

func addresses(texts []string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
