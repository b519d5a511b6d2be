package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConditionType is the type of a condition in the status of an object.
type ConditionType string

const (
	// ConditionValid is True when everything that the object says is in use, or does nothing by design.
	ConditionValid ConditionType = "Valid"
	// ConditionNodeAddressInPool is True when a node's own address is among the pool's.
	ConditionNodeAddressInPool ConditionType = "NodeAddressInPool"
	// ConditionOverlap is True when some of the pool's addresses belong to an older pool.
	ConditionOverlap ConditionType = "Overlap"
	// ConditionExhausted is True when the pool has no free address of a family that it has addresses of.
	ConditionExhausted ConditionType = "Exhausted"
	// ConditionConflict is True when another machine on the network answers for an address of the pool.
	ConditionConflict ConditionType = "Conflict"
)

// Reason is why a condition has its status.
type Reason string

const (
	// ReasonAccepted is the reason of a condition without a fault.
	ReasonAccepted Reason = "Accepted"
	// ReasonMalformedRange stands for an entry of spec.addresses that can't be read.
	ReasonMalformedRange Reason = "MalformedRange"
	// ReasonDuplicateRange stands for addresses that the same pool has in two entries.
	ReasonDuplicateRange Reason = "DuplicateRange"
	// ReasonOverlappingPools stands for addresses that an older pool has already.
	ReasonOverlappingPools Reason = "OverlappingPools"
	// ReasonOverlappingReservations stands for addresses that an older reservation has already.
	ReasonOverlappingReservations Reason = "OverlappingReservations"
	// ReasonOutsidePools stands for reserved addresses that no pool has.
	ReasonOutsidePools Reason = "OutsidePools"
	// ReasonQuotaNotUsed stands for a quota that never applies, because an earlier entry does.
	ReasonQuotaNotUsed Reason = "QuotaNotUsed"
	// ReasonMalformedSelector stands for a label selector that can't be read; it matches nothing.
	ReasonMalformedSelector Reason = "MalformedSelector"
	// ReasonNodeAddressInPool stands for a node's own address among a pool's.
	ReasonNodeAddressInPool Reason = "NodeAddressInPool"
	// ReasonPoolNotFound stands for the name of a pool that doesn't exist.
	ReasonPoolNotFound Reason = "PoolNotFound"
	// ReasonNoPoolSelected stands for an advertisement without a pool to announce.
	ReasonNoPoolSelected Reason = "NoPoolSelected"
	// ReasonNoNodeSelected stands for nodeSelectors that match no node.
	ReasonNoNodeSelected Reason = "NoNodeSelected"
	// ReasonInvalidValue stands for a value that its field can't have.
	ReasonInvalidValue Reason = "InvalidValue"
	// ReasonMissingField stands for a field that must be set and isn't.
	ReasonMissingField Reason = "MissingField"
	// ReasonContradiction stands for two fields of one object that exclude each other.
	ReasonContradiction Reason = "Contradiction"
	// ReasonPeerNotFound stands for the name of a BGPPeer that doesn't exist.
	ReasonPeerNotFound Reason = "PeerNotFound"
	// ReasonNoPeer stands for an advertisement to all peers where there are none.
	ReasonNoPeer Reason = "NoPeer"
	// ReasonMalformedCommunity stands for a BGP community that can't be read.
	ReasonMalformedCommunity Reason = "MalformedCommunity"
	// ReasonCommunityNotFound stands for the name of a BGP community that no Community object has.
	ReasonCommunityNotFound Reason = "CommunityNotFound"
	// ReasonDuplicateCommunity stands for a name that has a meaning already.
	ReasonDuplicateCommunity Reason = "DuplicateCommunity"
	// ReasonAggregationTooWide stands for a prefix that would cover addresses outside of the pool.
	ReasonAggregationTooWide Reason = "AggregationTooWide"
	// ReasonLocalPrefConflict stands for a localPref other than that of an older advertisement of the same prefixes.
	ReasonLocalPrefConflict Reason = "LocalPrefConflict"
	// ReasonBFDProfileNotFound stands for the name of a BFDProfile that doesn't exist.
	ReasonBFDProfileNotFound Reason = "BFDProfileNotFound"
	// ReasonBFDProfileInvalid stands for the name of a BFDProfile that has a fault.
	ReasonBFDProfileInvalid Reason = "BFDProfileInvalid"
	// ReasonEchoNotUsed stands for BFD's echo mode, which is accepted and does nothing.
	ReasonEchoNotUsed Reason = "EchoNotUsed"
	// ReasonSecretNotFound stands for a Secret that doesn't exist in the namespace of the installation.
	ReasonSecretNotFound Reason = "SecretNotFound"
	// ReasonSecretInvalid stands for a Secret without a usable password.
	ReasonSecretInvalid Reason = "SecretInvalid"
	// ReasonDuplicatePeer stands for a second peer at one address, on one node.
	ReasonDuplicatePeer Reason = "DuplicatePeer"
	// ReasonRouterIDConflict stands for two router IDs on one node.
	ReasonRouterIDConflict Reason = "RouterIDConflict"
	// ReasonPeerIsNode stands for a node's own address where a peer's belongs.
	ReasonPeerIsNode Reason = "PeerIsNode"
)

// Kinds that a Fault can be of.
const (
	KindIPAddressPool      = "IPAddressPool"
	KindAddressReservation = "AddressReservation"
	KindL2Advertisement    = "L2Advertisement"
	KindBGPAdvertisement   = "BGPAdvertisement"
	KindBGPPeer            = "BGPPeer"
	KindBFDProfile         = "BFDProfile"
	KindCommunity          = "Community"
)

// Fault is something wrong with one object.
type Fault struct {
	Kind, Name string
	Field      string // such as spec.addresses[0]
	Type       ConditionType
	Reason     Reason
	Message    string // says what is wrong and how to mend it
	Warning    bool   // the object is in use all the same
}

// String names the object, the field, what is wrong and how to mend it.
func (f Fault) String() string {
	return fmt.Sprintf("%s %q: %s: %s", f.Kind, f.Name, f.Field, f.Message)
}

func (f Fault) compare(g Fault) int {
	return cmp.Or(strings.Compare(f.Kind, g.Kind), strings.Compare(f.Name, g.Name))
}

// complaints are what is wrong with one object.
type complaints struct {
	kind, name string
	faults     []Fault
	harmful    bool // one of the faults is more than a warning
}

func (c *complaints) fault(field string, reason Reason, message string) {
	c.harmful = true
	c.faults = append(c.faults, Fault{
		Kind: c.kind, Name: c.name, Field: field, Type: ConditionValid, Reason: reason, Message: message,
	})
}

func (c *complaints) warn(field string, reason Reason, message string) {
	c.faults = append(c.faults, Fault{
		Kind: c.kind, Name: c.name, Field: field, Type: ConditionValid, Reason: reason, Message: message, Warning: true,
	})
}

// Conditions returns the conditions of one object, one of each type that its kind has, as far as they follow from the configuration.
// meta.SetStatusCondition merges them into those of its status.
func Conditions(faults []Fault, kind, name string, generation int64, now metav1.Time) []metav1.Condition {
	var invalid, overlaps, nodeAddresses []Fault
	for _, f := range faults {
		if f.Kind != kind || f.Name != name {
			continue
		}
		if f.Type == ConditionNodeAddressInPool {
			nodeAddresses = append(nodeAddresses, f)
			continue
		}
		invalid = append(invalid, f)
		if f.Reason == ReasonOverlappingPools {
			overlaps = append(overlaps, f)
		}
	}
	conditions := []metav1.Condition{valid(invalid)}
	if kind == KindIPAddressPool {
		conditions = append(conditions, found(ConditionOverlap, overlaps), found(ConditionNodeAddressInPool, nodeAddresses))
	}
	for i := range conditions {
		conditions[i].ObservedGeneration = generation
		conditions[i].LastTransitionTime = now
	}
	return conditions
}

// valid makes the condition Valid. A warning leaves an object valid, and the reason is that of the worst.
func valid(faults []Fault) metav1.Condition {
	c := metav1.Condition{Type: string(ConditionValid), Status: metav1.ConditionTrue, Reason: string(ReasonAccepted), Message: messages(faults)}
	if len(faults) > 0 {
		c.Reason = string(faults[0].Reason)
	}
	if i := slices.IndexFunc(faults, func(f Fault) bool { return !f.Warning }); i >= 0 {
		c.Status, c.Reason = metav1.ConditionFalse, string(faults[i].Reason)
	}
	return c
}

// found makes a condition that is True when there is something wrong.
func found(typ ConditionType, faults []Fault) metav1.Condition {
	c := metav1.Condition{Type: string(typ), Status: metav1.ConditionFalse, Reason: string(ReasonAccepted), Message: messages(faults)}
	if len(faults) > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, string(faults[0].Reason)
	}
	return c
}

func messages(faults []Fault) string {
	var out []string
	for _, f := range faults {
		out = append(out, f.Field+": "+f.Message)
	}
	return abridged(out, "; ")
}

// abridged joins the texts as far as they fit into something that can be read, and into a condition's message, which the API
// limits to 32 KiB.
func abridged(texts []string, separator string) string {
	const enough = 2000
	var b strings.Builder
	for i, text := range texts {
		if i > 0 {
			b.WriteString(separator)
		}
		if i > 0 && b.Len()+len(text) > enough {
			fmt.Fprintf(&b, "and %d more", len(texts)-i)
			break
		}
		if len(text) > enough {
			text = strings.ToValidUTF8(text[:enough], "") + "..."
		}
		b.WriteString(text)
	}
	return b.String()
}
