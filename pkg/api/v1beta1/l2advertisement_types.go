package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// L2Advertisement has the addresses of pools announced on the local network, by ARP and NDP. An empty spec announces every
// pool, from any node, on all interfaces.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.spec.ipAddressPools`
// +kubebuilder:printcolumn:name="Interfaces",type=string,JSONPath=`.spec.interfaces`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Pool Selectors",type=string,priority=1,JSONPath=`.spec.ipAddressPoolSelectors`
// +kubebuilder:printcolumn:name="Node Selectors",type=string,priority=1,JSONPath=`.spec.nodeSelectors`
// +kubebuilder:printcolumn:name="Service Selectors",type=string,priority=1,JSONPath=`.spec.serviceSelectors`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type L2Advertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec L2AdvertisementSpec `json:"spec,omitzero"`
	// +optional
	Status L2AdvertisementStatus `json:"status,omitzero"`
}

// L2AdvertisementList is a list of advertisements.
//
// +kubebuilder:object:root=true
type L2AdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []L2Advertisement `json:"items"`
}

// L2AdvertisementSpec says what is announced, and from where.
type L2AdvertisementSpec struct {
	// ipAddressPools are the names of the pools whose addresses are announced.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of an IPAddressPool: write it in lower case, with letters, digits, dashes and dots'",message="is no name of an IPAddressPool"
	IPAddressPools []string `json:"ipAddressPools,omitempty"`

	// ipAddressPoolSelectors match more pools by their labels. One of them must match. When there are neither names nor
	// selectors, every pool is announced.
	// +optional
	IPAddressPoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors,omitempty"`

	// nodeSelectors match, by their labels, the nodes that may announce. One of them must match; with none, any node may.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`

	// interfaces are the names of the interfaces to announce on; with none, all that the speaker uses. A node that has none of
	// them does not announce.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^ /:*@]{1,15}$')",messageExpression="'\"' + self + '\" is no name of an interface: write one name, of 15 characters at most, without the part from the @ that ip link shows; patterns are not understood'",message="is no name of an interface"
	Interfaces []string `json:"interfaces,omitempty"`

	// serviceSelectors match, by their labels, the Services whose addresses are announced. One of them must match; with none,
	// every Service is announced. Services that share an address are not announced through an advertisement with serviceSelectors.
	// +optional
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`

	// preferredNodeSelectors order the nodes that may announce: the node with the greatest sum of the weights of the selectors
	// that match it goes first.
	// +optional
	PreferredNodeSelectors []PreferredNodeSelector `json:"preferredNodeSelectors,omitempty"`
}

// PreferredNodeSelector gives weight to the nodes that it matches.
type PreferredNodeSelector struct {
	// weight is added to that of every node that preference matches, 1 to 100.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`

	// preference matches nodes by their labels; an empty one matches every node.
	// +required
	Preference metav1.LabelSelector `json:"preference"`
}

// L2AdvertisementStatus tells what is wrong with the advertisement.
type L2AdvertisementStatus struct {
	// conditions tell what is wrong with the advertisement and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
