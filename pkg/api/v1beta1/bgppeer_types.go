package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BGPPeer is a router that nodes have a BGP session with.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=steelyard
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.peerAddress`
// +kubebuilder:printcolumn:name="ASN",type=string,JSONPath=`.spec.peerASN`
// +kubebuilder:printcolumn:name="My ASN",type=string,JSONPath=`.spec.myASN`
// +kubebuilder:printcolumn:name="BFD Profile",type=string,JSONPath=`.spec.bfdProfile`
// +kubebuilder:printcolumn:name="Valid",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Valid")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec BGPPeerSpec `json:"spec"`
	// +optional
	Status BGPPeerStatus `json:"status,omitzero"`
}

// BGPPeerList is a list of peers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPPeer `json:"items"`
}

// BGPPeerSpec says who the peer is, which nodes have a session with it, and how.
type BGPPeerSpec struct {
	// myASN is the nodes' own AS number in this session.
	// +required
	MyASN uint32 `json:"myASN"`

	// peerASN is the peer's AS number. Either it or dynamicASN is set.
	// +optional
	PeerASN uint32 `json:"peerASN,omitempty"`

	// dynamicASN takes the peer's AS number from what it says of itself: "internal" is our own, "external" is any other.
	// +optional
	DynamicASN DynamicASN `json:"dynamicASN,omitempty"`

	// localASN is the AS number that this peer sees instead of myASN.
	// +optional
	LocalASN uint32 `json:"localASN,omitempty"`

	// peerAddress is the peer's address. One of peerAddress, peerAddressFrom and interface is set.
	// +optional
	PeerAddress string `json:"peerAddress,omitempty"`

	// peerAddressFrom finds the peer's address on each node.
	// +optional
	PeerAddressFrom *PeerAddressSource `json:"peerAddressFrom,omitempty"`

	// interface is that at whose other end the peer is, found by its router advertisements (unnumbered BGP).
	// +optional
	Interface string `json:"interface,omitempty"`

	// peerPort is the peer's TCP port, 179 by default.
	// +optional
	PeerPort uint16 `json:"peerPort,omitempty"`

	// sourceAddress is the node's address in this session.
	// +optional
	SourceAddress string `json:"sourceAddress,omitempty"`

	// vrf is the VRF device, or another interface, that the session is bound to.
	// +optional
	VRF string `json:"vrf,omitempty"`

	// passive waits for the peer to connect. The speaker must listen: see bgp.listenPort of the chart.
	// +optional
	Passive bool `json:"passive,omitempty"`

	// holdTime is after how long without a message the session is given up: 0 for never, or at least 3s. The default is 90s.
	// +optional
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// keepaliveTime is the time between messages, a third of holdTime by default.
	// +optional
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// connectTime is the time between attempts to connect, whole seconds from 1s to 65535s, 10s by default.
	// +optional
	ConnectTime *metav1.Duration `json:"connectTime,omitempty"`

	// routerID is the node's BGP identifier. All peers of one node must agree on it. The default is the node's IPv4 address.
	// +optional
	RouterID string `json:"routerID,omitempty"`

	// nodeSelectors match, by their labels, the nodes that have a session. One of them must match; with none, every node has.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`

	// password protects the session by TCP MD5 (RFC 2385). Prefer passwordSecret: everybody who may read the peer can read this.
	// +optional
	Password string `json:"password,omitempty"`

	// passwordSecret is the Secret, of type kubernetes.io/basic-auth and in the namespace of the installation, whose entry
	// "password" is the password.
	// +optional
	PasswordSecret *PasswordSecret `json:"passwordSecret,omitempty"`

	// bfdProfile is the name of the BFDProfile that the peer is watched with; without it, there is no BFD session.
	// +optional
	BFDProfile string `json:"bfdProfile,omitempty"`

	// enableGracefulRestart has the peer keep its routes while the speaker restarts (RFC 4724).
	// +optional
	EnableGracefulRestart bool `json:"enableGracefulRestart,omitempty"`

	// gracefulRestartTime is for how long, whole seconds from 1s to 4095s, 120s by default.
	// +optional
	GracefulRestartTime *metav1.Duration `json:"gracefulRestartTime,omitempty"`

	// gracefulShutdown is for how long routes carry the community GRACEFUL_SHUTDOWN (RFC 8326) before they are withdrawn on purpose,
	// up to 20s, so that the peer finds others first. With 0, the default, they are withdrawn at once.
	// +optional
	GracefulShutdown *metav1.Duration `json:"gracefulShutdown,omitempty"`

	// ebgpMultiHop allows routers between the node and a peer of another AS.
	// +optional
	EBGPMultiHop bool `json:"ebgpMultiHop,omitempty"`

	// ttlSecurity drops packets that come from further away than this many hops (GTSM, RFC 5082). The peer must use it too.
	// +optional
	TTLSecurity uint8 `json:"ttlSecurity,omitempty"`

	// dualStackAddressFamily announces IPv4 and IPv6 over this one session.
	// +optional
	DualStackAddressFamily bool `json:"dualStackAddressFamily,omitempty"`

	// disableMP changes nothing; it is accepted because MetalLB has it.
	// +optional
	DisableMP bool `json:"disableMP,omitempty"`
}

// DynamicASN says which AS numbers a peer may have.
//
// +kubebuilder:validation:Enum=internal;external
type DynamicASN string

// The values of dynamicASN.
const (
	DynamicASNInternal DynamicASN = "internal"
	DynamicASNExternal DynamicASN = "external"
)

// PeerAddressSource finds a peer's address. One of its fields is set.
type PeerAddressSource struct {
	// defaultGateway takes the next hop of the node's default route of this family, "IPv4" or "IPv6".
	// +optional
	DefaultGateway string `json:"defaultGateway,omitempty"`

	// nodeAnnotation takes the value of the annotation of this name on the Node.
	// +optional
	NodeAnnotation string `json:"nodeAnnotation,omitempty"`
}

// PasswordSecret names a Secret in the namespace of the installation.
type PasswordSecret struct {
	// name of the Secret.
	// +required
	Name string `json:"name"`

	// namespace may be left out; only the namespace of the installation is accepted.
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// BGPPeerStatus tells what is wrong with the peer. The state of each node's session is in its BGPSession.
type BGPPeerStatus struct {
	// conditions tell what is wrong with the peer and how to mend it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
