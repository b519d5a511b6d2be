package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPAddressPool is a set of addresses that Services of type LoadBalancer get theirs from.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
type IPAddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec IPAddressPoolSpec `json:"spec"`
	// +optional
	Status IPAddressPoolStatus `json:"status,omitempty"`
}

// IPAddressPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type IPAddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []IPAddressPool `json:"items"`
}

// IPAddressPoolSpec says which addresses there are and who may have them.
type IPAddressPoolSpec struct {
	// addresses are the pool's ranges, each a CIDR or the first and the last address with a dash between them. IPv4 and IPv6 may
	// stand in one pool; a dual-stack Service takes both of its addresses from the same pool, so it needs one that has both.
	// +required
	Addresses []string `json:"addresses"`

	// autoAssign lets Services have an address of this pool without asking for it by name or by address.
	// +optional
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// avoidBuggyIPs keeps the IPv4 addresses that end in .0 and .255 from being given out, also on request: some old devices
	// take them for network and broadcast addresses.
	// +optional
	// +kubebuilder:default=false
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`

	// serviceAllocation reserves the pool for some Services, and orders the pools that a Service may use.
	// +optional
	ServiceAllocation *ServiceAllocation `json:"serviceAllocation,omitempty"`
}

// ServiceAllocation says which Services may use a pool: those in one of its namespaces (by name or by selector, when there are
// any) that also match one of its service selectors (when there are any). With none of the three, it is every Service.
type ServiceAllocation struct {
	// priority orders the pools that a Service may use: the lowest number goes first, and 0 (unset) last.
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// namespaces are the names of the namespaces whose Services may use the pool.
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`

	// namespaceSelectors match, by their labels, the namespaces whose Services may use the pool. One of them must match.
	// +optional
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`

	// serviceSelectors match, by their labels, the Services that may use the pool. One of them must match.
	// +optional
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`
}

// IPAddressPoolStatus counts the pool's addresses and tells what is wrong with the pool.
type IPAddressPoolStatus struct {
	// assignedIPv4 is the number of IPv4 addresses that Services have.
	AssignedIPv4 int64 `json:"assignedIPv4"`
	// assignedIPv6 is the number of IPv6 addresses that Services have.
	AssignedIPv6 int64 `json:"assignedIPv6"`
	// availableIPv4 is the number of IPv4 addresses that are still free.
	AvailableIPv4 int64 `json:"availableIPv4"`
	// availableIPv6 is the number of IPv6 addresses that are still free, 9223372036854775807 when there are more.
	AvailableIPv6 int64 `json:"availableIPv6"`

	// conditions tell what is wrong with the pool and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
