package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BFDProfile says how quickly BFD notices that a peer is gone (RFC 5880).
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Transmit Interval",type=integer,JSONPath=`.spec.transmitInterval`
// +kubebuilder:printcolumn:name="Receive Interval",type=integer,JSONPath=`.spec.receiveInterval`
// +kubebuilder:printcolumn:name="Multiplier",type=integer,JSONPath=`.spec.detectMultiplier`
// +kubebuilder:printcolumn:name="Passive Mode",type=boolean,JSONPath=`.spec.passiveMode`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Minimum TTL",type=integer,priority=1,JSONPath=`.spec.minimumTtl`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
type BFDProfile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Spec BFDProfileSpec `json:"spec,omitzero"`
	// +optional
	Status BFDProfileStatus `json:"status,omitzero"`
}

// BFDProfileList is a list of profiles.
//
// +kubebuilder:object:root=true
type BFDProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BFDProfile `json:"items"`
}

// BFDProfileSpec holds the timers of BFD sessions.
type BFDProfileSpec struct {
	// receiveInterval is the least time between packets that we ask the peer for, in milliseconds, 10 to 60000, 300 by default.
	// +optional
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=60000
	// +kubebuilder:default=300
	ReceiveInterval *uint32 `json:"receiveInterval,omitempty"`

	// transmitInterval is the least time between packets that we send, in milliseconds, 10 to 60000, 300 by default.
	// +optional
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=60000
	// +kubebuilder:default=300
	TransmitInterval *uint32 `json:"transmitInterval,omitempty"`

	// detectMultiplier is how many packets in a row must be missing, 2 to 255, 3 by default.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=255
	// +kubebuilder:default=3
	DetectMultiplier *uint32 `json:"detectMultiplier,omitempty"`

	// echoMode is not used: echo packets would need this node's kernel to forward them. See the documentation.
	// +optional
	// +kubebuilder:default=false
	EchoMode *bool `json:"echoMode,omitempty"`

	// echoInterval is not used, as echoMode.
	// +optional
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=60000
	EchoInterval *uint32 `json:"echoInterval,omitempty"`

	// passiveMode waits for the peer's first packet before any is sent.
	// +optional
	// +kubebuilder:default=false
	PassiveMode *bool `json:"passiveMode,omitempty"`

	// minimumTtl is the lowest TTL of packets that are accepted in multihop sessions, 1 to 254, 254 by default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=254
	// +kubebuilder:default=254
	MinimumTTL *uint32 `json:"minimumTtl,omitempty"`
}

// BFDProfileStatus tells what is wrong with the profile.
type BFDProfileStatus struct {
	// conditions tell what is wrong with the profile and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
