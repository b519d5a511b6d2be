package config

import (
	"fmt"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// communityNames is what the names of the Community objects stand for.
type communityNames struct {
	values map[string]namedCommunity
	broken map[string]string // names whose value can't be read, and the Community object that has them
}

type namedCommunity struct {
	object, field string
	value         bgp.Community
}

// parseCommunities gives a name to the older of two objects that have it, so that creating an object changes no name's meaning.
func parseCommunities(resources []v1beta1.Community) (communityNames, []Fault) {
	names := communityNames{map[string]namedCommunity{}, map[string]string{}}
	var faults []Fault
	for _, res := range oldestFirst(resources) {
		f := complaints{kind: KindCommunity, name: res.Name}
		for i, entry := range res.Spec.Communities {
			names.add(res.Name, fmt.Sprintf("spec.communities[%d]", i), entry, &f)
		}
		faults = append(faults, f.faults...)
	}
	return names, faults
}

func (n communityNames) add(object, field string, entry v1beta1.CommunityAlias, f *complaints) {
	value, err := bgp.ParseCommunity(entry.Value)
	if err != nil {
		n.broken[entry.Name] = object
		f.fault(field+".value", ReasonMalformedCommunity, fmt.Sprintf("%v; until then this entry gives %q no meaning", err, entry.Name))
		return
	}
	own, err := bgp.ParseCommunity(entry.Name)
	other, taken := n.values[entry.Name]
	switch {
	case err == nil && own != value:
		f.fault(field+".name", ReasonDuplicateCommunity, fmt.Sprintf("%q has a meaning of its own and can't stand for %s: take another name",
			entry.Name, entry.Value))
	case taken && other.object == object:
		f.fault(field+".name", ReasonDuplicateCommunity, fmt.Sprintf("%s has the name %q too, and is in use: take one of the two away", other.field, entry.Name))
	case taken:
		f.fault(field+".name", ReasonDuplicateCommunity, fmt.Sprintf(
			"the older Community %q has the name %q too (%s there), and is in use: take it out of one of the two", other.object, entry.Name, other.field))
	default:
		n.values[entry.Name] = namedCommunity{object, field, value}
	}
}

// resolve returns what an advertisement's text stands for: a name, or a value.
func (n communityNames) resolve(text, field string, f *complaints) bgp.Community {
	if named, ok := n.values[text]; ok {
		return named.value
	}
	value, err := bgp.ParseCommunity(text)
	if err == nil {
		return value
	}
	const outcome = "the advertisement is not in force, so that nothing is told without it"
	object, broken := n.broken[text]
	switch {
	case broken:
		f.fault(field, ReasonMalformedCommunity, fmt.Sprintf("the Community %q has no readable value for %q: mend it there; %s", object, text, outcome))
	case strings.Contains(text, ":"):
		f.fault(field, ReasonMalformedCommunity, fmt.Sprintf("%v; %s", err, outcome))
	default:
		f.fault(field, ReasonCommunityNotFound, fmt.Sprintf("no Community has the name, and %v; %s", err, outcome))
	}
	return bgp.Community{}
}
