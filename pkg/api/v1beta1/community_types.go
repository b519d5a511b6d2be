package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Community gives BGP communities names that BGPAdvertisements can use.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Names",type=string,JSONPath=`.spec.communities[*].name`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
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
	Communities []CommunityAlias `json:"communities,omitempty"`
}

// CommunityAlias is a named community.
type CommunityAlias struct {
	// name is what BGPAdvertisements say. No other Community may have the same.
	// +required
	Name string `json:"name"`

	// value is what it stands for: 65000:100, large:65000:1:2, or a well-known name such as no-export.
	// +required
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
