package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

// Installation is how Steelyard itself stands.
type Installation struct {
	// Namespace is "" when no pod was found.
	Namespace string `json:"namespace,omitempty"`
	Class     string `json:"loadBalancerClass"`
	Dataplane string `json:"dataplane,omitempty"`
	// Wrong are what keeps it from working as it should, the more important ones first.
	Wrong      []Finding                  `json:"wrong,omitempty"`
	Controller Controller                 `json:"controller"`
	Speakers   []Speaker                  `json:"speakers,omitempty"`
	Sessions   []v1beta1.BGPSessionStatus `json:"sessions,omitempty"`
	Faults     []Fault                    `json:"faults,omitempty"`
	// Waiting have no address, or not all that they asked for; Unannounced have one that nobody announces.
	Waiting     []Waiting `json:"waiting,omitempty"`
	Unannounced []Waiting `json:"unannounced,omitempty"`
	// NotKnown is what could not be read.
	NotKnown []cluster.Gap `json:"notKnown,omitempty"`
}

// Controller is the controller's replicas.
type Controller struct {
	Pods  int `json:"pods"`
	Ready int `json:"ready"`
	// Leader is the pod that holds the Lease, if it is ready.
	Leader string `json:"leader,omitempty"`
}

// Speaker is a node's speaker.
type Speaker struct {
	Node string `json:"node"`
	// Pod is "" on a node without one.
	Pod   string `json:"pod,omitempty"`
	Ready bool   `json:"ready"`
	// Says is what it says of itself; nil if it was not asked.
	Says *view.Speaker `json:"says,omitempty"`
}

// Fault is something wrong with one object of the configuration.
type Fault struct {
	Kind    string        `json:"kind"`
	Name    string        `json:"name"`
	Field   string        `json:"field"`
	Reason  config.Reason `json:"reason"`
	Message string        `json:"message"`
	// Warning: the object is in use all the same.
	Warning bool `json:"warning,omitempty"`
}

// Waiting is a Service that waits for something.
type Waiting struct {
	Service string `json:"service"` // namespace/name
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Status returns how Steelyard stands; says are what speakers say of themselves, by node.
func Status(s *cluster.Snapshot, says map[string]view.Speaker) *Installation {
	in := &Installation{Namespace: s.Namespace, Class: s.Class(), Dataplane: s.Dataplane(), NotKnown: s.Gaps}
	in.Controller = controllerOf(s)
	in.Speakers = speakersOf(s, says)
	for i := range s.Sessions {
		in.Sessions = append(in.Sessions, s.Sessions[i].Status)
	}
	slices.SortFunc(in.Sessions, func(a, b v1beta1.BGPSessionStatus) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Peer, b.Peer))
	})
	if s.Knows(cluster.IPAddressPools, cluster.AddressReservations, cluster.L2Advertisements, cluster.BGPAdvertisements, cluster.BGPPeers,
		cluster.BFDProfiles, cluster.Communities) {
		_, faults := config.Parse(s.Resources)
		for _, f := range faults {
			in.Faults = append(in.Faults, Fault{f.Kind, f.Name, f.Field, f.Reason, f.Message, f.Warning})
		}
	}
	in.Waiting, in.Unannounced = waitingOf(s)
	in.judge(s)
	return in
}

func controllerOf(s *cluster.Snapshot) Controller {
	c := Controller{Pods: len(s.Controllers)}
	holder := ""
	if s.Lease != nil {
		// The identity is the pod's name and a number.
		holder, _, _ = strings.Cut(ptr.Deref(s.Lease.Spec.HolderIdentity, ""), "_")
	}
	for i := range s.Controllers {
		pod := &s.Controllers[i]
		if !ready(pod) {
			continue
		}
		c.Ready++
		if pod.Name == holder {
			c.Leader = holder
		}
	}
	return c
}

func speakersOf(s *cluster.Snapshot, says map[string]view.Speaker) []Speaker {
	byNode := map[string]Speaker{}
	for i := range s.Nodes {
		byNode[s.Nodes[i].Name] = Speaker{Node: s.Nodes[i].Name}
	}
	for i := range s.Speakers {
		pod := &s.Speakers[i]
		if old := byNode[pod.Spec.NodeName]; old.Pod == "" || !old.Ready { // during a rollout there may be two
			byNode[pod.Spec.NodeName] = Speaker{Node: pod.Spec.NodeName, Pod: pod.Name, Ready: ready(pod)}
		}
	}
	var all []Speaker
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		speaker := byNode[node]
		if said, ok := says[node]; ok {
			speaker.Says = &said
		}
		all = append(all, speaker)
	}
	return all
}

// waitingOf returns the Services that wait for an address, and those that wait for somebody to announce theirs.
func waitingOf(s *cluster.Snapshot) (address, announcer []Waiting) {
	for i := range s.Services {
		svc := &s.Services[i]
		if !assign.Serves(svc, s.Class()) || svc.DeletionTimestamp != nil {
			continue
		}
		name := svc.Namespace + "/" + svc.Name
		switch c := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAddressAssigned); {
		case c == nil:
			address = append(address, Waiting{name, NotLookedAt, "no controller has said anything of it"})
		case c.Status != metav1.ConditionTrue:
			address = append(address, Waiting{name, c.Reason, c.Message})
		}
		if c := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAnnounced); c != nil && c.Status == metav1.ConditionFalse {
			announcer = append(announcer, Waiting{name, c.Reason, c.Message})
		}
	}
	byName := func(a, b Waiting) int { return strings.Compare(a.Service, b.Service) }
	slices.SortFunc(address, byName)
	slices.SortFunc(announcer, byName)
	return address, announcer
}

// judge finds what is wrong.
func (in *Installation) judge(s *cluster.Snapshot) {
	wrong := func(reason, message string, mend ...string) {
		in.Wrong = append(in.Wrong, Finding{reason, message, mend})
	}
	const pods = "kubectl get pods -A -o wide -l app.kubernetes.io/name=steelyard"
	c := in.Controller
	switch {
	case !s.Knows(cluster.Pods):
	case c.Pods+len(s.Speakers) == 0:
		wrong("NotInstalled", "no pod of Steelyard was found", "install the chart, or see that its pods have the label app.kubernetes.io/name=steelyard")
	case c.Ready == 0:
		wrong("NoController", fmt.Sprintf("no controller is ready, so Services get no addresses: %d of %d", c.Ready, c.Pods), "see why: "+pods+", then kubectl logs")
	case c.Leader == "" && s.Knows(cluster.Leases):
		wrong("NoLeader", "no controller leads, so Services get no addresses", "see why: kubectl -n "+in.Namespace+" logs -l app.kubernetes.io/component=controller --prefix")
	}
	var bad, alone []string
	for _, sp := range in.Speakers {
		switch {
		case sp.Pod != "" && !sp.Ready:
			bad = append(bad, sp.Node)
		case sp.Says != nil && !sp.Says.Quorum:
			alone = append(alone, sp.Node)
		}
	}
	if len(bad) > 0 {
		wrong("SpeakerNotReady", "the speaker is not ready on "+abridged(bad), "see why: "+pods+", then kubectl logs")
	}
	if len(alone) > 0 {
		wrong("NoQuorum", "the speaker sees no more than half of all on "+abridged(alone)+", so more than one node may answer for an address",
			"see that the speakers reach each other by UDP and TCP on their port memberlist (7946)")
	}
	in.judgeMembers(wrong)
	in.judgeConflicts(wrong)
	down := 0
	for i := range in.Sessions {
		if in.Sessions[i].State != string(bgp.Established) {
			down++
		}
	}
	if down > 0 {
		wrong("BGPSessionDown", fmt.Sprintf("%d of %s not up: see below", down, count(len(in.Sessions), "BGP session")), announce.Say(announce.SessionDown).Mend)
	}
	if n := in.harmful(); n > 0 {
		wrong("InvalidConfiguration", count(n, "fault")+" in the configuration: see below")
	}
	if n := len(in.Waiting); n > 0 {
		wrong("ServicesWaiting", count(n, "Service")+" without an address: see below")
	}
	unannounced := 0
	for _, w := range in.Unannounced {
		if w.Reason != string(announce.NoServingEndpoint) { // whose pods are none is for whoever runs them to say
			unannounced++
		}
	}
	if unannounced > 0 {
		wrong("ServicesUnannounced", count(unannounced, "Service")+" announced by nobody: see below")
	}
}

func (in *Installation) judgeConflicts(wrong func(reason, message string, mend ...string)) {
	for _, sp := range in.Speakers {
		if sp.Says != nil && len(sp.Says.Conflicts) > 0 {
			wrong(string(announce.AddressConflict), fmt.Sprintf("another machine on the network of %s answers for %s", sp.Node, join(sp.Says.Conflicts)),
				announce.Say(announce.AddressConflict).Mend)
		}
	}
}

// judgeMembers finds speakers that don't see one that is ready.
func (in *Installation) judgeMembers(wrong func(reason, message string, mend ...string)) {
	var live, differ []string
	for _, sp := range in.Speakers {
		if sp.Ready {
			live = append(live, sp.Node)
		}
	}
	for _, sp := range in.Speakers {
		if sp.Says == nil || !sp.Says.Quorum {
			continue
		}
		if unseen := missing(live, sp.Says.Members); len(unseen) > 0 {
			differ = append(differ, sp.Node+" does not see "+abridged(unseen))
		}
	}
	if len(differ) > 0 {
		wrong("MembersDiffer", "not every speaker sees all that are ready: "+abridged(differ),
			"after a restart that lasts a few seconds; if it lasts, see that the speakers reach each other by UDP and TCP on their port memberlist (7946)")
	}
}

// missing returns what of all is not in some.
func missing(all, some []string) []string {
	var out []string
	for _, one := range all {
		if !slices.Contains(some, one) {
			out = append(out, one)
		}
	}
	return out
}

func (in *Installation) harmful() int {
	n := 0
	for _, f := range in.Faults {
		if !f.Warning {
			n++
		}
	}
	return n
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
