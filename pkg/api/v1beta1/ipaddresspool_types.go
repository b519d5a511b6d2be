package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPAddressPool is a set of addresses that Services of type LoadBalancer get theirs from.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="IPv4 Used",type=integer,JSONPath=`.status.assignedIPv4`
// +kubebuilder:printcolumn:name="IPv4 Free",type=integer,JSONPath=`.status.availableIPv4`
// +kubebuilder:printcolumn:name="IPv6 Used",type=integer,JSONPath=`.status.assignedIPv6`
// +kubebuilder:printcolumn:name="IPv6 Free",type=integer,JSONPath=`.status.availableIPv6`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Exhausted",type=string,JSONPath=`.status.conditions[?(@.type=="Exhausted")].status`
// +kubebuilder:printcolumn:name="Conflict",type=string,JSONPath=`.status.conditions[?(@.type=="Conflict")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Addresses",type=string,priority=1,JSONPath=`.spec.addresses`
// +kubebuilder:printcolumn:name="IPv4 Total",type=integer,priority=1,JSONPath=`.status.totalIPv4`
// +kubebuilder:printcolumn:name="IPv6 Total",type=integer,priority=1,JSONPath=`.status.totalIPv6`
// +kubebuilder:printcolumn:name="Auto Assign",type=boolean,priority=1,JSONPath=`.spec.autoAssign`
// +kubebuilder:printcolumn:name="Strategy",type=string,priority=1,JSONPath=`.spec.strategy`
// +kubebuilder:printcolumn:name="Overlap",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Overlap")].status`
// +kubebuilder:printcolumn:name="Node Address In Pool",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="NodeAddressInPool")].status`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type IPAddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec IPAddressPoolSpec `json:"spec"`
	// +optional
	Status IPAddressPoolStatus `json:"status,omitzero"`
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
	// stand in one pool. A dual-stack Service takes both of its addresses from one pool, if there is one that has both.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	Addresses AddressRanges `json:"addresses"`

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

	// strategy says which free address goes first. Lowest: the lowest. Random: one that follows from the Service's name, so that addresses
	// can't be guessed from each other, and a Service that is deleted and created anew likely has the same. LeastRecentlyUsed: one that no
	// Service has had yet, the lowest first, and then the one that was given back longest ago.
	// +optional
	// +kubebuilder:default=Lowest
	Strategy AllocationStrategy `json:"strategy,omitempty"`

	// namespaceQuotas limit how many of the pool's addresses the Services of one namespace may have. The first entry that a namespace
	// matches applies to it; a namespace that matches none has no limit. Lowering a quota takes no address away.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	NamespaceQuotas []NamespaceQuota `json:"namespaceQuotas,omitempty"`

	// shareAcrossNamespaces lets Services of different namespaces share an address of this pool, if all of them ask for it with the same
	// key in the annotation steelyard.io/allow-shared-ip. Within a namespace they may in any case.
	// +optional
	// +kubebuilder:default=false
	ShareAcrossNamespaces bool `json:"shareAcrossNamespaces,omitempty"`
}

// AllocationStrategy says which free address of a pool goes first.
//
// +kubebuilder:validation:Enum=Lowest;Random;LeastRecentlyUsed
type AllocationStrategy string

// The strategies of a pool.
const (
	StrategyLowest            AllocationStrategy = "Lowest"
	StrategyRandom            AllocationStrategy = "Random"
	StrategyLeastRecentlyUsed AllocationStrategy = "LeastRecentlyUsed"
)

// NamespaceQuota limits the addresses of each namespace that it matches.
type NamespaceQuota struct {
	// addresses is how many of the pool's addresses of each family the Services of one namespace may have together. One that they share
	// counts once.
	// +required
	// +kubebuilder:validation:Minimum=0
	Addresses int32 `json:"addresses"`

	// namespaces are the names of the namespaces that the quota is for. With neither these nor namespaceSelectors, it is for all; such an
	// entry belongs at the end.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	Namespaces NamespaceNames `json:"namespaces,omitempty"`

	// namespaceSelectors match, by their labels, the namespaces that the quota is for, beside those that are named.
	// +optional
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
}

// ServiceAllocation says which Services may use a pool: those in one of its namespaces (by name or by selector, when there are
// any) that also match one of its service selectors (when there are any). With none of the three, it is every Service.
type ServiceAllocation struct {
	// priority orders the pools that a Service may use: the lowest number goes first, and 0 (unset) last.
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// namespaces are the names of the namespaces whose Services may use the pool.
	// +optional
	// +kubebuilder:validation:MaxItems=512
	Namespaces NamespaceNames `json:"namespaces,omitempty"`

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
	// +optional
	AssignedIPv4 int64 `json:"assignedIPv4"`
	// assignedIPv6 is the number of IPv6 addresses that Services have.
	// +optional
	AssignedIPv6 int64 `json:"assignedIPv6"`
	// availableIPv4 is the number of IPv4 addresses that are still free.
	// +optional
	AvailableIPv4 int64 `json:"availableIPv4"`
	// availableIPv6 is the number of IPv6 addresses that are still free, 9223372036854775807 when there are more.
	// +optional
	AvailableIPv6 int64 `json:"availableIPv6"`

	// totalIPv4 is the number of IPv4 addresses that the pool can give out. Addresses reserved for nobody are not among them.
	// +optional
	TotalIPv4 int64 `json:"totalIPv4"`
	// totalIPv6 is the number of IPv6 addresses that the pool can give out, 9223372036854775807 when there are more.
	// +optional
	TotalIPv6 int64 `json:"totalIPv6"`
	// released are, with the strategy LeastRecentlyUsed, the addresses that were given back last, the latest at the end; 64 at most. A
	// controller that starts anew knows them by this.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Released []string `json:"released,omitempty"`

	// conditions tell what is wrong with the pool and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
