package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPAdvertisement has the addresses of pools announced to BGP peers. An empty spec announces every pool, from every node, to all peers.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.spec.ipAddressPools`
// +kubebuilder:printcolumn:name="Peers",type=string,JSONPath=`.spec.peers`
// +kubebuilder:printcolumn:name="Communities",type=string,JSONPath=`.spec.communities`
// +kubebuilder:printcolumn:name="Local Pref",type=integer,JSONPath=`.spec.localPref`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="IPv4 Length",type=integer,priority=1,JSONPath=`.spec.aggregationLength`
// +kubebuilder:printcolumn:name="IPv6 Length",type=integer,priority=1,JSONPath=`.spec.aggregationLengthV6`
// +kubebuilder:printcolumn:name="Pool Selectors",type=string,priority=1,JSONPath=`.spec.ipAddressPoolSelectors`
// +kubebuilder:printcolumn:name="Node Selectors",type=string,priority=1,JSONPath=`.spec.nodeSelectors`
// +kubebuilder:printcolumn:name="Service Selectors",type=string,priority=1,JSONPath=`.spec.serviceSelectors`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type BGPAdvertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec BGPAdvertisementSpec `json:"spec,omitzero"`
	// +optional
	Status BGPAdvertisementStatus `json:"status,omitzero"`
}

// BGPAdvertisementList is a list of advertisements.
//
// +kubebuilder:object:root=true
type BGPAdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPAdvertisement `json:"items"`
}

// BGPAdvertisementSpec says what is announced, from where, to whom, and how it looks.
//
// +kubebuilder:validation:XValidation:rule="!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || ((!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))",message="serviceSelectors go with single addresses only: leave aggregationLength and aggregationLengthV6 out, or write two advertisements",fieldPath=".serviceSelectors"
type BGPAdvertisementSpec struct {
	// ipAddressPools are the names of the pools whose addresses are announced.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of an IPAddressPool: write it in lower case, with letters, digits, dashes and dots'",message="is no name of an IPAddressPool"
	IPAddressPools []string `json:"ipAddressPools,omitempty"`

	// ipAddressPoolSelectors match more pools by their labels. When there are neither names nor selectors, every pool is announced.
	// +optional
	IPAddressPoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors,omitempty"`

	// nodeSelectors match, by their labels, the nodes that announce. One of them must match; with none, every node does.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`

	// serviceSelectors match, by their labels, the Services whose addresses are announced. One of them must match; with none,
	// every Service is announced. They go with the default aggregation lengths only.
	// +optional
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`

	// peers are the names of the BGPPeers that are told; with none, all are.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a BGPPeer: write it in lower case, with letters, digits, dashes and dots'",message="is no name of a BGPPeer"
	Peers []string `json:"peers,omitempty"`

	// aggregationLength is the length of the IPv4 prefixes that are announced in place of single addresses, 32 by default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	AggregationLength *int32 `json:"aggregationLength,omitempty"`

	// aggregationLengthV6 is the same for IPv6, 128 by default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	AggregationLengthV6 *int32 `json:"aggregationLengthV6,omitempty"`

	// localPref is the LOCAL_PREF that peers of our own AS are told; 0 leaves it at 100. Others are not told.
	// +optional
	// +kubebuilder:validation:Format=int64
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPref uint32 `json:"localPref,omitempty"`

	// med is the MULTI_EXIT_DISC that peers are told: of several ways into our AS they take the lowest. Unset sends none.
	// +optional
	// +kubebuilder:validation:Format=int64
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *uint32 `json:"med,omitempty"`

	// asPathPrepend is how many more times our AS number stands in the AS path than it must, 0 to 10.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	ASPathPrepend int32 `json:"asPathPrepend,omitempty"`

	// communities are names of entries of Community objects, well-known names such as no-export, or values: 65000:100, large:65000:1:2.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=63
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([0-9]{1,10}:[0-9]{1,10}|large:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}|[A-Za-z0-9][A-Za-z0-9._-]*)$')",messageExpression="'\"' + self + '\" is no community: ' + (self.matches('^[0-9]+:[0-9]+:[0-9]+$') ? 'if it is to be a large one, write large:' + self : 'write two numbers such as 65000:100, large:65000:1:2, or a name')",message="is no community"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^[0-9]{1,10}:[0-9]{1,10}$') || self.split(':').all(n, int(n) <= 65535)",messageExpression="'\"' + self + '\" is no community, because it has a number above 65535: numbers up to 4294967295 fit into a large one, such as large:' + self + ':0'",message="has a number above 65535"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^large:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') || self.substring(6).split(':').all(n, int(n) <= 4294967295)",messageExpression="'\"' + self + '\" is no community: no number in it may be above 4294967295'",message="has a number above 4294967295"
	Communities []string `json:"communities,omitempty"`

	// weightByEndpoints tells peers, by the link bandwidth community, how many endpoints the node has of a Service whose
	// externalTrafficPolicy is Local, so that they can spread connections evenly over endpoints.
	// +optional
	WeightByEndpoints bool `json:"weightByEndpoints,omitempty"`
}

// BGPAdvertisementStatus tells what is wrong with the advertisement.
type BGPAdvertisementStatus struct {
	// conditions tell what is wrong with the advertisement and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
