package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPSession shows the state of one node's session with one BGPPeer. Speakers write it; nobody else has to.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.status.node`
// +kubebuilder:printcolumn:name="Peer",type=string,JSONPath=`.status.peer`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.address`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.since`
// +kubebuilder:printcolumn:name="Prefixes",type=integer,JSONPath=`.status.announcedPrefixes`
// +kubebuilder:printcolumn:name="BFD",type=string,JSONPath=`.status.bfd.state`
// +kubebuilder:printcolumn:name="Last Error",type=string,JSONPath=`.status.lastError`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Local",type=string,priority=1,JSONPath=`.status.localAddress`
type BGPSession struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status BGPSessionStatus `json:"status,omitzero"`
}

// BGPSessionList is a list of sessions.
//
// +kubebuilder:object:root=true
type BGPSessionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPSession `json:"items"`
}

// BGPSessionStatus is the state of a session.
type BGPSessionStatus struct {
	// node is the node's name.
	Node string `json:"node"`
	// peer is the BGPPeer's name.
	Peer string `json:"peer"`
	// address is the peer's address.
	// +optional
	Address string `json:"address,omitempty"`
	// localAddress is the node's address in the session.
	// +optional
	LocalAddress string `json:"localAddress,omitempty"`
	// peerASN is the peer's AS number.
	// +optional
	// +kubebuilder:validation:Format=int64
	PeerASN uint32 `json:"peerASN,omitempty"`
	// state is Idle, Connect, Active, OpenSent, OpenConfirm or Established (RFC 4271), or Refused when the node can't have the session.
	State string `json:"state"`
	// reason says why the state is Refused.
	// +optional
	Reason string `json:"reason,omitempty"`
	// since is when the state began.
	// +optional
	Since metav1.Time `json:"since,omitzero"`
	// lastError is why the session last ended or did not come up.
	// +optional
	LastError string `json:"lastError,omitempty"`
	// announcedPrefixes is how many prefixes the peer is told.
	// +optional
	AnnouncedPrefixes int32 `json:"announcedPrefixes"`
	// bfd is the state of the BFD session that goes with it.
	// +optional
	BFD *BFDStatus `json:"bfd,omitempty"`
}

// BFDStatus is the state of a BFD session.
type BFDStatus struct {
	// state is AdminDown, Down, Init or Up.
	State string `json:"state"`
	// diagnostic says why it last went down.
	// +optional
	Diagnostic string `json:"diagnostic,omitempty"`
}
