// Package v1beta1 holds the types of the API group steelyard.io. All kinds but ServiceAnnouncement are cluster-scoped: there
// is one network.
//
// +kubebuilder:object:generate=true
// +groupName=steelyard.io
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the API group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "steelyard.io", Version: "v1beta1"}

	// SchemeBuilder collects the kinds of this package.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the kinds of this package with a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&IPAddressPool{}, &IPAddressPoolList{},
		&AddressReservation{}, &AddressReservationList{},
		&L2Advertisement{}, &L2AdvertisementList{},
		&BGPPeer{}, &BGPPeerList{},
		&BGPAdvertisement{}, &BGPAdvertisementList{},
		&BFDProfile{}, &BFDProfileList{},
		&Community{}, &CommunityList{},
		&BGPSession{}, &BGPSessionList{},
		&ServiceAnnouncement{}, &ServiceAnnouncementList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
