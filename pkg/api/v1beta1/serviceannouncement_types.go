package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ServiceAnnouncement shows that one node announces the addresses of one Service, and how. It lives beside the Service. Speakers
// write it; nobody else has to.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=steelyard
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.status.service`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Layer2",type=string,JSONPath=`.status.layer2.addresses`
// +kubebuilder:printcolumn:name="BGP",type=string,JSONPath=`.status.bgp.prefixes`
// +kubebuilder:printcolumn:name="Peers",type=string,JSONPath=`.status.bgp.peers`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Interfaces",type=string,priority=1,JSONPath=`.status.layer2.interfaces`
type ServiceAnnouncement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status ServiceAnnouncementStatus `json:"status,omitzero"`
}

// ServiceAnnouncementList is a list of announcements.
//
// +kubebuilder:object:root=true
type ServiceAnnouncementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ServiceAnnouncement `json:"items"`
}

// ServiceAnnouncementStatus is what one node announces of one Service.
type ServiceAnnouncementStatus struct {
	// service is the Service's name.
	Service string `json:"service"`
	// node is the node's name.
	Node string `json:"node"`
	// layer2 is what it answers for on the local network.
	// +optional
	Layer2 *Layer2Announcement `json:"layer2,omitempty"`
	// bgp is what it tells routers.
	// +optional
	BGP *BGPAnnouncement `json:"bgp,omitempty"`
}

// Layer2Announcement is what a node answers for by ARP and NDP.
type Layer2Announcement struct {
	// addresses are the Service's addresses that the node answers for.
	Addresses []string `json:"addresses"`
	// interfaces are where it answers; none for all.
	// +optional
	Interfaces []string `json:"interfaces,omitempty"`
}

// BGPAnnouncement is what a node tells routers.
type BGPAnnouncement struct {
	// prefixes are those that hold the Service's addresses.
	Prefixes []string `json:"prefixes"`
	// peers are the names of the BGPPeers that are told.
	Peers []string `json:"peers"`
}
