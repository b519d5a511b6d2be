package v1beta1

import "strings"

// Annotations on a Service, for the application's team.
const (
	// AnnotationPool names the IPAddressPool that the Service wants its address from, or two with a comma between them, one for each family.
	AnnotationPool = "steelyard.io/address-pool"
	// AnnotationAddresses lists the addresses that the Service wants, separated by commas, at most one per family.
	AnnotationAddresses = "steelyard.io/loadBalancerIPs"
	// AnnotationShareKey lets Services with the same key share an address.
	AnnotationShareKey = "steelyard.io/allow-shared-ip"
	// AnnotationKeep, with the value "true", keeps the Service's addresses for it when it is deleted, until a Service of its name is
	// created again or the AddressReservation is deleted that the controller makes of it.
	AnnotationKeep = "steelyard.io/keep-address"
)

// The same annotations under the prefixes that existing manifests carry.
const (
	AnnotationPoolMetalLB      = "metallb.io/address-pool"
	AnnotationAddressesMetalLB = "metallb.io/loadBalancerIPs"
	AnnotationShareKeyMetalLB  = "metallb.io/allow-shared-ip"

	AnnotationPoolMetalLBUniverse      = "metallb.universe.tf/address-pool"
	AnnotationAddressesMetalLBUniverse = "metallb.universe.tf/loadBalancerIPs"
	AnnotationShareKeyMetalLBUniverse  = "metallb.universe.tf/allow-shared-ip"
)

// DefaultLoadBalancerClass is the spec.loadBalancerClass that Steelyard serves unless it is configured otherwise.
const DefaultLoadBalancerClass = "steelyard.io/lb"

// Condition types in a Service's status.
const (
	// ConditionAddressAssigned tells whether the Service has all the addresses that it asked for.
	ConditionAddressAssigned = "steelyard.io/AddressAssigned"
	// ConditionAnnounced tells whether a node answers for the Service's addresses.
	ConditionAnnounced = "steelyard.io/Announced"
)

// Annotation returns the value of the Service annotation `name` (one of this package's steelyard.io/ constants) and the key
// under which it was found. Keys with our prefix win over metallb.io/, and that over metallb.universe.tf/.
func Annotation(annotations map[string]string, name string) (value, key string, ok bool) {
	_, suffix, _ := strings.Cut(name, "/")
	for _, prefix := range []string{"steelyard.io/", "metallb.io/", "metallb.universe.tf/"} {
		key := prefix + suffix
		if value, ok := annotations[key]; ok {
			return value, key, true
		}
	}
	return "", "", false
}
