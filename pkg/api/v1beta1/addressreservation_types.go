package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LabelKept is on the AddressReservations that the controller made for Services with the annotation AnnotationKeep. It deletes them when
// the annotation is taken away; when the Service is deleted they stay.
const LabelKept = "steelyard.io/kept"

// AddressReservation keeps addresses of the pools from all Services but the one that they are for.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.spec.addresses`
// +kubebuilder:printcolumn:name="For Namespace",type=string,JSONPath=`.spec.for.namespace`
// +kubebuilder:printcolumn:name="For Service",type=string,JSONPath=`.spec.for.service`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type AddressReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec AddressReservationSpec `json:"spec"`
	// +optional
	Status AddressReservationStatus `json:"status,omitzero"`
}

// AddressReservationList is a list of reservations.
//
// +kubebuilder:object:root=true
type AddressReservationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressReservation `json:"items"`
}

// AddressReservationSpec says which addresses are reserved, and for whom.
type AddressReservationSpec struct {
	// addresses are what is reserved, written as in a pool: CIDRs such as 192.0.2.10/32, or the first and the last address with a dash
	// between them. A Service that has one of them when the reservation is made keeps it.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Addresses AddressRanges `json:"addresses"`

	// for is who may have the addresses; unset, nobody may.
	// +optional
	For *ReservedFor `json:"for,omitempty"`
}

// ReservedFor is whom addresses are reserved for.
type ReservedFor struct {
	// namespace is that of the Services that may ask for the addresses.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a namespace: write it in lower case, with letters, digits and dashes, 63 at most'",message="is no name of a namespace"
	Namespace string `json:"namespace"`

	// service is the name of the one Service that may have them. It gets the lowest free one of each family without asking.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a Service: write it in lower case, with letters, digits and dashes, 63 at most, without the namespace'",message="is no name of a Service"
	Service string `json:"service,omitempty"`
}

// AddressReservationStatus tells what is wrong with the reservation.
type AddressReservationStatus struct {
	// conditions tell what is wrong with the reservation and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
