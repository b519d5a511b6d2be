package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Community gives BGP communities names that BGPAdvertisements can use.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Communities",type=string,JSONPath=`.spec.communities`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type Community struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec CommunitySpec `json:"spec,omitzero"`
	// +optional
	Status CommunityStatus `json:"status,omitzero"`
}

// CommunityList is a list of Community objects.
//
// +kubebuilder:object:root=true
type CommunityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Community `json:"items"`
}

// CommunitySpec holds named communities.
type CommunitySpec struct {
	// communities are the names and what they stand for.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	Communities []CommunityAlias `json:"communities,omitempty"`
}

// CommunityAlias is a named community.
//
// A well-known name may have its own value, because MetalLB's users had to define it.
// +kubebuilder:validation:XValidation:rule="[{'graceful-shutdown': '65535:0', 'accept-own': '65535:1', 'llgr-stale': '65535:6', 'no-llgr': '65535:7', 'blackhole': '65535:666', 'no-export': '65535:65281', 'no-advertise': '65535:65282', 'no-export-subconfed': '65535:65283', 'local-as': '65535:65283', 'no-peer': '65535:65284'}].all(known, !(self.name in known) || self.value == self.name || self.value == known[self.name])",messageExpression="'\"' + self.name + '\" is a well-known name and needs no entry here: leave it out, or choose another name for ' + self.value",message="is a well-known name",fieldPath=".name"
type CommunityAlias struct {
	// name is what BGPAdvertisements say. No other Community may have the same.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')",messageExpression="'\"' + self + '\" is no name of a community: write letters, digits, dots, dashes and underscores, and begin with a letter or a digit'",message="is no name of a community"
	Name string `json:"name"`

	// value is what it stands for: 65000:100, large:65000:1:2, or a well-known name such as no-export.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,10}:[0-9]{1,10}|large:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}|graceful-shutdown|accept-own|llgr-stale|no-llgr|blackhole|no-export|no-advertise|no-export-subconfed|local-as|no-peer)$')",messageExpression="'\"' + self + '\" is no community: ' + (self.matches('^[0-9]+:[0-9]+:[0-9]+$') ? 'if it is to be a large one, write large:' + self : 'write two numbers such as 65000:100, large:65000:1:2, or a well-known name such as no-export')",message="is no community"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9]{1,10}:[0-9]{1,10}$') || self.split(':').all(n, int(n) <= 65535)",messageExpression="'\"' + self + '\" is no community, because it has a number above 65535: numbers up to 4294967295 fit into a large one, such as large:' + self + ':0'",message="has a number above 65535"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^large:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') || self.substring(6).split(':').all(n, int(n) <= 4294967295)",messageExpression="'\"' + self + '\" is no community: no number in it may be above 4294967295'",message="has a number above 4294967295"
	Value string `json:"value"`
}

// CommunityStatus tells what is wrong with the names.
type CommunityStatus struct {
	// conditions tell what is wrong and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
