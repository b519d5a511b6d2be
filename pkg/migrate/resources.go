package migrate

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	strictjson "sigs.k8s.io/json"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

const notOurs = "Steelyard has no such field, and does without"

// convert makes our objects of one of MetalLB's.
func (c *conversion) convert(o *unstructured.Unstructured) {
	switch {
	case isLegacyFile(o.Object):
		file := &unstructured.Unstructured{Object: map[string]any{"kind": "file", "metadata": map[string]any{"name": "config"}}}
		c.convertFile(file, o.Object)
		return
	case o.GetKind() == "" || groupOf(o) == "kustomize.config.k8s.io":
		c.unrendered(o)
		return
	case groupOf(o) == "metallb.io" && o.GetNamespace() != "" && o.GetNamespace() != c.namespace:
		c.lose(o, "metadata.namespace", "is %s, and MetalLB reads its configuration in its own namespace only, %s: it is left out; "+
			"if MetalLB is installed in %s, say so with -n", o.GetNamespace(), c.namespace, o.GetNamespace())
		return
	}
	switch groupOf(o) {
	case "metallb.io":
		c.convertResource(o)
	case "frrk8s.metallb.io":
		// MetalLB's speakers write one FRRConfiguration of this name for each node; the other kinds tell what is.
		if o.GetKind() == "FRRConfiguration" && !strings.HasPrefix(o.GetName(), "metallb-") {
			c.lose(o, "", "Steelyard has no FRR: if a BGPPeer and a BGPAdvertisement can't say what it does, it needs a routing daemon of its own on the nodes")
		}
	case "":
		if o.GetKind() == "ConfigMap" {
			c.convertConfigMap(o)
			return
		}
		c.strange(o)
	default:
		c.strange(o)
	}
}

// unrendered tells of what objects are made from: a kustomization, the values of a chart.
func (c *conversion) unrendered(o *unstructured.Unstructured) {
	n := Note{Kind: o.GetKind(), Name: "*", Lost: true, Message: "is no object of a cluster, and is left out: " +
		"render what it is for with kubectl kustomize or helm template, and let steelyardctl migrate -f - read that"}
	if n.Kind == "" {
		n.Kind, n.Name = "document", strings.Join(slices.Sorted(maps.Keys(o.Object)), ", ")
	}
	c.Notes = append(c.Notes, n)
}

func (c *conversion) strange(o *unstructured.Unstructured) {
	if kind := o.GetKind(); kind != "Service" && kind != "Namespace" {
		c.strangers[kind] = true
	}
}

func (c *conversion) convertResource(o *unstructured.Unstructured) {
	r := &c.Resources
	switch o.GetKind() {
	case config.KindIPAddressPool:
		p := v1beta1.IPAddressPool{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &p.Spec) {
			add(c, o, &r.Pools, p)
		}
	case config.KindL2Advertisement:
		ad := v1beta1.L2Advertisement{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &ad.Spec) {
			add(c, o, &r.L2Advertisements, ad)
		}
	case config.KindBGPAdvertisement:
		ad := v1beta1.BGPAdvertisement{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &ad.Spec) {
			add(c, o, &r.BGPAdvertisements, ad)
		}
	case config.KindBGPPeer:
		p := v1beta1.BGPPeer{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &p.Spec) {
			c.passwordOf(o, &p)
			add(c, o, &r.BGPPeers, p)
		}
	case config.KindBFDProfile:
		p := v1beta1.BFDProfile{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &p.Spec) {
			add(c, o, &r.BFDProfiles, p)
		}
	case config.KindCommunity:
		community := v1beta1.Community{TypeMeta: ours(o.GetKind()), ObjectMeta: c.meta(o)}
		if c.read(o, &community.Spec) {
			add(c, o, &r.Communities, community)
		}
	case "AddressPool":
		c.convertAddressPool(o)
	case "ServiceL2Status", "ServiceBGPStatus", "ConfigurationState":
		// They tell what is, not what shall be.
	case "MetalLB":
		c.lose(o, "", "is for MetalLB's operator, and is left out: what it sets is set by the values of Steelyard's chart")
	default:
		c.lose(o, "", "is of a kind that is not known here, and is left out")
	}
}

// read reads the spec of an object of a kind whose fields MetalLB and Steelyard have in common. It lists the fields that only MetalLB has,
// and tells whether the rest could be read.
func (c *conversion) read(o *unstructured.Unstructured, into any) bool {
	spec, found, err := unstructured.NestedMap(o.Object, "spec")
	if err != nil {
		c.lose(o, "spec", "can't be read, and the object is left out: %v", err)
		return false
	}
	if !found {
		return true
	}
	return c.decode(o, "spec.", spec, into)
}

// decode is read for a part of an object, whose fields have the prefix.
func (c *conversion) decode(o *unstructured.Unstructured, prefix string, part, into any) bool {
	text, err := json.Marshal(part)
	if err != nil {
		c.lose(o, strings.TrimRight(prefix, "."), "can't be read, and is left out: %v", err)
		return false
	}
	unknown, err := strictjson.UnmarshalStrict(text, into)
	if err != nil {
		err = json.Unmarshal(text, into) // the same in a type that can be told apart
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		c.lose(o, prefix+wrong.Field, "can't be a %s: all that the object says is left out", wrong.Value)
		return false
	case err != nil:
		c.lose(o, strings.TrimRight(prefix, "."), "can't be read, and is left out: %v", err)
		return false
	}
	for _, u := range unknown {
		if f, ok := u.(strictjson.FieldError); ok {
			c.lose(o, prefix+f.FieldPath(), notOurs)
		}
	}
	return true
}

// meta keeps what the configuration is about: the name, and the labels, by which advertisements select pools.
func (c *conversion) meta(o *unstructured.Unstructured) metav1.ObjectMeta {
	kept := maps.Clone(o.GetLabels())
	for _, key := range slices.Sorted(maps.Keys(kept)) {
		if claims(key) {
			delete(kept, key)
			c.note(o, "metadata.labels", "%s is left out, because a deployment tool takes objects with it for its own and may delete them", key)
		}
	}
	if len(kept) == 0 {
		kept = nil
	}
	return metav1.ObjectMeta{Name: o.GetName(), Labels: kept}
}

// claims tells whether a deployment tool knows its objects by the label: Helm, Argo CD and Flux, which delete what they know and don't find
// in their sources.
func claims(label string) bool {
	switch label {
	case "app.kubernetes.io/managed-by", "app.kubernetes.io/instance":
		return true
	}
	prefix, _, _ := strings.Cut(label, "/")
	return prefix == "argocd.argoproj.io" || strings.HasSuffix(prefix, ".toolkit.fluxcd.io")
}

// passwordOf leaves it to a person to copy the Secret: what is printed here may be read by anybody.
func (c *conversion) passwordOf(o *unstructured.Unstructured, p *v1beta1.BGPPeer) {
	ref := p.Spec.PasswordSecret
	if ref == nil || ref.Name == "" {
		p.Spec.PasswordSecret = nil // one without a name means none to MetalLB
		return
	}
	ref.Namespace = ""
	c.lose(o, "spec.passwordSecret", "the Secret %s is not copied, and there is no session without it: "+
		"kubectl -n %s create secret generic %s --type=kubernetes.io/basic-auth --from-literal=password=...", ref.Name, c.home, ref.Name)
}

// add appends the object, unless there is one of its name: MetalLB's objects are in namespaces and ours are not.
func add[T any, P interface {
	*T
	client.Object
}](c *conversion, o *unstructured.Unstructured, to *[]T, object T) {
	name := P(&object).GetName()
	if slices.ContainsFunc(*to, func(t T) bool { return P(&t).GetName() == name }) {
		c.lose(o, "", "there is another %s %q, and this one is left out: give one of them another name", P(&object).GetObjectKind().GroupVersionKind().Kind, name)
		return
	}
	*to = append(*to, object)
}
