// Package migrate makes Steelyard's configuration of MetalLB's, and lists what it can't carry over. It is pure, and knows MetalLB's objects
// by their text only: the custom resources of all versions, and the ConfigMap of the time before them.
package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/plan"
)

// Result is what became of MetalLB's configuration.
type Result struct {
	// Resources have Steelyard's objects, each kind sorted by name.
	Resources config.Resources
	// Notes are in the order of kinds and names.
	Notes []Note
	// Kept is how many Services keep all of their addresses.
	Kept int
}

// Note is something to know about one object.
type Note struct {
	Kind, Name string
	Field      string // empty for the object as a whole
	Message    string // says what becomes of it, and what is left to do
	// Lost: it is not carried over, or does not work yet.
	Lost bool
}

// String names the object, the field, and what becomes of it.
func (n Note) String() string {
	field := ""
	if n.Field != "" {
		field = n.Field + ": "
	}
	return fmt.Sprintf("%s %q: %s%s", n.Kind, n.Name, field, n.Message)
}

// Convert makes Steelyard's objects of those of MetalLB, whose installation is in the namespace, and looks at what comes of the Services in
// the cluster when they are created now. Equal objects in another order give an equal result.
func Convert(objects []unstructured.Unstructured, before *cluster.Snapshot, namespace string, now metav1.Time) (*Result, error) {
	c := conversion{namespace: namespace, home: cmp.Or(before.Namespace, "steelyard-system"), strangers: map[string]bool{}}
	objects = slices.Clone(objects)
	// What is written in old kinds comes last: names for what becomes of it are chosen among those that are left.
	slices.SortStableFunc(objects, func(a, b unstructured.Unstructured) int {
		return cmp.Or(rank(&a)-rank(&b), strings.Compare(a.GetKind(), b.GetKind()), strings.Compare(a.GetNamespace(), b.GetNamespace()),
			strings.Compare(a.GetName(), b.GetName()), strings.Compare(a.GetAPIVersion(), b.GetAPIVersion()))
	})
	c.modern = slices.ContainsFunc(objects, func(o unstructured.Unstructured) bool {
		return groupOf(&o) == "metallb.io" && (o.GetNamespace() == "" || o.GetNamespace() == namespace)
	})
	for i := range objects {
		c.convert(&objects[i])
	}
	c.sort()
	c.allowSharing(before.Services)
	if err := c.try(before, now); err != nil {
		return nil, err
	}
	c.tellStrangers()
	slices.SortStableFunc(c.Notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return &c.Result, nil
}

// Lost tells whether something is not carried over.
func (r *Result) Lost() bool {
	return slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Lost })
}

// Objects returns what is to be applied, in an order in which each object finds what it names.
func (r *Result) Objects() []client.Object {
	var all []client.Object
	all = append(all, pointers(r.Resources.Pools)...)
	all = append(all, pointers(r.Resources.BFDProfiles)...)
	all = append(all, pointers(r.Resources.Communities)...)
	all = append(all, pointers(r.Resources.BGPPeers)...)
	all = append(all, pointers(r.Resources.BGPAdvertisements)...)
	return append(all, pointers(r.Resources.L2Advertisements)...)
}

// YAML returns the objects as text that kubectl can apply.
func (r *Result) YAML() ([]byte, error) {
	var all []byte
	for i, o := range r.Objects() {
		text, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)
		}
		if i > 0 {
			all = append(all, "---\n"...)
		}
		all = append(all, text...)
	}
	return all, nil
}

func pointers[T any, P interface {
	*T
	client.Object
}](objects []T) []client.Object {
	var all []client.Object
	for i := range objects {
		all = append(all, P(&objects[i]))
	}
	return all
}

// conversion is a Result in the making.
type conversion struct {
	Result
	namespace string          // of MetalLB
	home      string          // namespace of Steelyard
	modern    bool            // MetalLB has custom resources
	strangers map[string]bool // kinds that are none of MetalLB's configuration
}

func (c *conversion) note(of *unstructured.Unstructured, field, format string, args ...any) {
	c.Notes = append(c.Notes, Note{Kind: of.GetKind(), Name: of.GetName(), Field: field, Message: fmt.Sprintf(format, args...)})
}

func (c *conversion) lose(of *unstructured.Unstructured, field, format string, args ...any) {
	c.note(of, field, format, args...)
	c.Notes[len(c.Notes)-1].Lost = true
}

// rank tells the kinds of today from those of before.
func rank(o *unstructured.Unstructured) int {
	switch {
	case o.GetKind() == "AddressPool":
		return 1
	case o.GetKind() == "ConfigMap" || isLegacyFile(o.Object):
		return 2
	}
	return 0
}

// allowSharing sets shareAcrossNamespaces where Services of several namespaces have one address: MetalLB never forbids it.
func (c *conversion) allowSharing(services []corev1.Service) {
	users := map[netip.Addr]map[string]bool{} // namespaces
	for i := range services {
		for _, a := range assign.Addresses(&services[i]) {
			if users[a] == nil {
				users[a] = map[string]bool{}
			}
			users[a][services[i].Namespace] = true
		}
	}
	cfg, _ := config.Parse(c.Resources)
	shared := map[string][]string{} // by pool
	for _, a := range slices.SortedFunc(maps.Keys(users), netip.Addr.Compare) {
		if p := cfg.PoolOf(a); p != nil && len(users[a]) > 1 {
			namespaces := strings.Join(slices.Sorted(maps.Keys(users[a])), ", ")
			shared[p.Name] = append(shared[p.Name], fmt.Sprintf("%s (%s)", a, namespaces))
		}
	}
	for i := range c.Resources.Pools {
		pool := &c.Resources.Pools[i]
		if texts := shared[pool.Name]; texts != nil {
			pool.Spec.ShareAcrossNamespaces = true
			c.Notes = append(c.Notes, Note{Kind: config.KindIPAddressPool, Name: pool.Name, Field: "spec.shareAcrossNamespaces",
				Message: "is true, because Services of several namespaces share an address today: " + strings.Join(texts, "; ")})
		}
	}
}

// try adds what Steelyard will find fault with, which MetalLB may have left unsaid, and which Services do not keep their addresses.
func (c *conversion) try(before *cluster.Snapshot, now metav1.Time) error {
	if err := c.needsNamespaces(before); err != nil {
		return err
	}
	edit := plan.Edit{Put: c.Objects()}
	after, err := edit.Apply(before, now)
	if err != nil {
		return err
	}
	_, faults := config.Parse(after.Resources)
	for _, f := range faults {
		c.Notes = append(c.Notes, Note{Kind: f.Kind, Name: f.Name, Field: f.Field, Message: f.Message, Lost: !f.Warning})
	}
	p := plan.New(before, after)
	c.Kept = p.Unchanged
	for i := range p.Services {
		s := &p.Services[i]
		note := Note{Kind: "Service", Name: s.Namespace + "/" + s.Name, Message: "would not keep all of its addresses: " + s.Message, Lost: true}
		switch s.Outcome {
		case plan.Loses, plan.Moves:
			c.Notes = append(c.Notes, note)
		case plan.Keeps:
			c.Kept++
		}
	}
	cfg, _ := config.Parse(c.Resources)
	for i := range before.Services {
		c.otherClass(&before.Services[i], before.Class(), cfg)
	}
	return nil
}

// needsNamespaces returns an error if Services seem to lose their addresses only because nobody knows the labels of their namespaces.
func (c *conversion) needsNamespaces(before *cluster.Snapshot) error {
	gap := slices.IndexFunc(before.Gaps, func(g cluster.Gap) bool { return g.Resource == cluster.Namespaces })
	if gap < 0 || len(before.Services) == 0 {
		return nil
	}
	for i := range c.Resources.Pools {
		p := &c.Resources.Pools[i]
		if p.Spec.ServiceAllocation != nil && len(p.Spec.ServiceAllocation.NamespaceSelectors) > 0 {
			return fmt.Errorf("nobody can tell which Services keep their addresses, because IPAddressPool %q has spec.serviceAllocation.namespaceSelectors and "+
				"the labels of namespaces are not known: %s", p.Name, before.Gaps[gap].Why)
		}
	}
	return nil
}

// otherClass tells of a Service that MetalLB has given an address and that Steelyard will leave alone.
func (c *conversion) otherClass(svc *corev1.Service, class string, cfg *config.Config) {
	has := slices.ContainsFunc(assign.Addresses(svc), func(a netip.Addr) bool { return cfg.PoolOf(a) != nil })
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || !has || assign.Serves(svc, class) || svc.Spec.LoadBalancerClass == nil {
		return
	}
	c.Notes = append(c.Notes, Note{Kind: "Service", Name: svc.Namespace + "/" + svc.Name, Field: "spec.loadBalancerClass", Lost: true,
		Message: fmt.Sprintf("is %s, which Steelyard does not serve, and can't be changed: set loadBalancerClass to it in the values of Steelyard's chart",
			*svc.Spec.LoadBalancerClass)})
}

func (c *conversion) tellStrangers() {
	for _, kind := range slices.Sorted(maps.Keys(c.strangers)) {
		c.Notes = append(c.Notes, Note{Kind: kind, Name: "*", Message: "left out: the kind says nothing of addresses and announcements"})
	}
}

func (c *conversion) sort() {
	r := &c.Resources
	byName(r.Pools)
	byName(r.L2Advertisements)
	byName(r.BGPAdvertisements)
	byName(r.BGPPeers)
	byName(r.BFDProfiles)
	byName(r.Communities)
}

func byName[T any, P interface {
	*T
	metav1.Object
}](objects []T) {
	slices.SortFunc(objects, func(a, b T) int { return strings.Compare(P(&a).GetName(), P(&b).GetName()) })
}

// ours returns what an object of Steelyard begins with.
func ours(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1beta1.GroupVersion.String(), Kind: kind}
}

func groupOf(o *unstructured.Unstructured) string {
	gv, _ := schema.ParseGroupVersion(o.GetAPIVersion())
	return gv.Group
}
