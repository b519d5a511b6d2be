package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPAddressPool is a set of addresses that Services of type LoadBalancer get theirs from.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.spec.addresses`
// +kubebuilder:printcolumn:name="Auto Assign",type=boolean,JSONPath=`.spec.autoAssign`
// +kubebuilder:printcolumn:name="IPv4 Used",type=integer,JSONPath=`.status.assignedIPv4`
// +kubebuilder:printcolumn:name="IPv4 Free",type=integer,JSONPath=`.status.availableIPv4`
// +kubebuilder:printcolumn:name="IPv6 Used",type=integer,JSONPath=`.status.assignedIPv6`
// +kubebuilder:printcolumn:name="IPv6 Free",type=integer,JSONPath=`.status.availableIPv6`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Avoid Buggy IPs",type=boolean,priority=1,JSONPath=`.spec.avoidBuggyIPs`
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
	// CEL has no order on addresses. So the last rule looks for the prefix length n at which the two addresses are still in one
	// network and at n+1 are not, and demands that the first address has a 0 in the bit between: then both lengths leave it the same
	// network. It finds the group of 16 bits first, for CEL's cost budget; t holds the lengths, 4 characters each, because the
	// estimated cost of a number made text is unbounded. IPv4 is looked at as the tail of an IPv6 address.
	// +kubebuilder:validation:items:XValidation:rule="self.contains('-') || isCIDR(self.trim())",messageExpression="isIP(self.trim()) ? self.trim() + ' is a single address: write ' + self.trim() + (ip(self.trim()).family() == 4 ? '/32' : '/128') : '\"' + self + '\" is no range of addresses: write a CIDR such as 192.0.2.0/24, or the first and the last address such as 192.0.2.10-192.0.2.20'",message="is no range of addresses"
	// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || (isIP(self.substring(0, self.indexOf('-')).trim()) && isIP(self.substring(self.indexOf('-') + 1).trim()))",messageExpression="'\"' + self + '\" does not name two addresses: write both in full, such as 192.0.2.10-192.0.2.20 or 2001:db8::10-2001:db8::20'",message="does not name two addresses"
	// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || [self.substring(0, self.indexOf('-')).trim()].all(a, [self.substring(self.indexOf('-') + 1).trim()].all(b, !isIP(a) || !isIP(b) || ip(a).family() == ip(b).family()))",messageExpression="'\"' + self + '\" mixes IPv4 and IPv6: write one range for each family'",message="mixes IPv4 and IPv6"
	// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || [self.substring(0, self.indexOf('-')).trim()].all(a, [self.substring(self.indexOf('-') + 1).trim()].all(b, !isIP(a) || !isIP(b) || ip(a).family() != ip(b).family() || ip(a) == ip(b) || ['/0  /1  /2  /3  /4  /5  /6  /7  /8  /9  /10 /11 /12 /13 /14 /15 /16 /17 /18 /19 /20 /21 /22 /23 /24 /25 /26 /27 /28 /29 /30 /31 /32 /33 /34 /35 /36 /37 /38 /39 /40 /41 /42 /43 /44 /45 /46 /47 /48 /49 /50 /51 /52 /53 /54 /55 /56 /57 /58 /59 /60 /61 /62 /63 /64 /65 /66 /67 /68 /69 /70 /71 /72 /73 /74 /75 /76 /77 /78 /79 /80 /81 /82 /83 /84 /85 /86 /87 /88 /89 /90 /91 /92 /93 /94 /95 /96 /97 /98 /99 /100/101/102/103/104/105/106/107/108/109/110/111/112/113/114/115/116/117/118/119/120/121/122/123/124/125/126/127/128'].all(t, [(ip(a).family() == 4 ? '1::' : '') + a].all(x, [ip((ip(a).family() == 4 ? '1::' : '') + b)].all(y, [[0, 64, 128, 192, 256, 320, 384, 448].filter(o, cidr(x + t.substring(o, o + 4).trim()).containsIP(y) && !cidr(x + t.substring(o + 64, o + 64 + 4).trim()).containsIP(y))[0]].all(g, [g, g + 4, g + 8, g + 12, g + 16, g + 20, g + 24, g + 28, g + 32, g + 36, g + 40, g + 44, g + 48, g + 52, g + 56, g + 60].exists(o, [cidr(x + t.substring(o, o + 4).trim())].all(n, [cidr(x + t.substring(o + 4, o + 4 + 4).trim())].all(m, n.containsIP(y) && !m.containsIP(y) && n.masked().ip() == m.masked().ip())))))))))",messageExpression="'\"' + self + '\" runs backwards: write ' + self.substring(self.indexOf('-') + 1).trim() + '-' + self.substring(0, self.indexOf('-')).trim()",message="runs backwards"

	// addresses are the pool's ranges, each a CIDR or the first and the last address with a dash between them. IPv4 and IPv6 may
	// stand in one pool; a dual-stack Service takes both of its addresses from the same pool, so it needs one that has both.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=100
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
	// addresses is how many addresses of each family the Services of one namespace may have together. One that they share counts once.
	// +required
	// +kubebuilder:validation:Minimum=0
	Addresses int32 `json:"addresses"`

	// namespaces are the names of the namespaces that the quota is for. With neither these nor namespaceSelectors, it is for all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=63
	Namespaces []string `json:"namespaces,omitempty"`

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
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a namespace: write it in lower case, with letters, digits and dashes, 63 at most'",message="is no name of a namespace"
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
