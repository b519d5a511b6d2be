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
// +kubebuilder:printcolumn:name="Address From",type=string,priority=1,JSONPath=`.spec.peerAddressFrom`
// +kubebuilder:printcolumn:name="Interface",type=string,priority=1,JSONPath=`.spec.interface`
// +kubebuilder:printcolumn:name="Dynamic ASN",type=string,priority=1,JSONPath=`.spec.dynamicASN`
// +kubebuilder:printcolumn:name="Node Selectors",type=string,priority=1,JSONPath=`.spec.nodeSelectors`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Valid")].message`
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
//
// The password is looked at from here, because the API server's answer to a rule at the field itself would quote it.
// +kubebuilder:validation:XValidation:rule="has(self.peerASN) != has(self.dynamicASN)",messageExpression="has(self.peerASN) ? 'peerASN and dynamicASN are both set: keep one of the two' : 'the AS number of the peer is missing: set peerASN, or dynamicASN to internal or external'",message="set either peerASN or dynamicASN"
// +kubebuilder:validation:XValidation:rule="(has(self.peerAddress) ? 1 : 0) + (has(self.peerAddressFrom) ? 1 : 0) + (has(self.interface) ? 1 : 0) == 1",messageExpression="has(self.peerAddress) || has(self.peerAddressFrom) || has(self.interface) ? 'of peerAddress, peerAddressFrom and interface more than one is set: keep one of them' : 'nothing says where the peer is: set peerAddress, peerAddressFrom or interface'",message="set one of peerAddress, peerAddressFrom and interface"
// +kubebuilder:validation:XValidation:rule="!has(self.peerAddress) || self.peerAddress.contains('%') || has(self.vrf) || !isIP(self.peerAddress) || ip(self.peerAddress).family() == 4 || !ip(self.peerAddress).isLinkLocalUnicast()",messageExpression="self.peerAddress + ' is a link-local address, and nothing says at which interface: write ' + self.peerAddress + '%eth0 with the name of the interface'",message="a link-local address needs its interface",fieldPath=".peerAddress"
// +kubebuilder:validation:XValidation:rule="!has(self.sourceAddress) || !isIP(self.sourceAddress.split('%')[0]) || ip(self.sourceAddress.split('%')[0]).family() in (has(self.interface) ? [6] : has(self.peerAddressFrom) && has(self.peerAddressFrom.defaultGateway) ? [self.peerAddressFrom.defaultGateway == 'IPv6' ? 6 : 4] : has(self.peerAddress) && isIP(self.peerAddress.split('%')[0]) ? [ip(self.peerAddress.split('%')[0]).family()] : [4, 6])",messageExpression="self.sourceAddress + ' is of another family than the address of the peer: write one of the same family, or leave it out'",message="is of another family than the address of the peer",fieldPath=".sourceAddress"
// +kubebuilder:validation:XValidation:rule="!has(self.peerAddress) || !has(self.sourceAddress) || (self.peerAddress != self.sourceAddress && (!isIP(self.peerAddress) || !isIP(self.sourceAddress) || !cidr(self.peerAddress + (ip(self.peerAddress).family() == 4 ? '/32' : '/128')).containsIP(self.sourceAddress)))",messageExpression="self.sourceAddress + ' is the address of the peer, too: write one that the node has, or leave it out'",message="sourceAddress is the address of the peer",fieldPath=".sourceAddress"
// +kubebuilder:validation:XValidation:rule="!has(self.holdTime) || !has(self.keepaliveTime) || !self.holdTime.matches('^(0|([0-9]{1,5}[hms]){1,3})$') || !self.keepaliveTime.matches('^(0|([0-9]{1,5}[hms]){1,3})$') || duration(self.keepaliveTime) <= duration(self.holdTime)",messageExpression="'keepaliveTime ' + self.keepaliveTime + ' is above holdTime ' + self.holdTime + ': write a third of holdTime, or leave it out'",message="keepaliveTime is above holdTime",fieldPath=".keepaliveTime"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || !self.keepaliveTime.matches('^(0|([0-9]{1,5}[hms]){1,3})$') || duration(self.keepaliveTime) != duration('0s') || (has(self.holdTime) && self.holdTime.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && duration(self.holdTime) == duration('0s'))",message="keepaliveTime is 0 and holdTime is not, so the session would end for want of keepalives: set holdTime to 0, too, or leave keepaliveTime out",fieldPath=".keepaliveTime"
// +kubebuilder:validation:XValidation:rule="!has(self.password) || size(bytes(self.password)) <= 80",message="the password is too long: the kernel takes 80 bytes, and a character that is not ASCII is several",fieldPath=".password"
// +kubebuilder:validation:XValidation:rule="!has(self.password) || !has(self.passwordSecret)",message="password and passwordSecret are both set: keep one of the two",fieldPath=".password"
// +kubebuilder:validation:XValidation:rule="!has(self.ebgpMultiHop) || !self.ebgpMultiHop || !(has(self.peerASN) ? self.peerASN == (has(self.localASN) ? self.localASN : self.myASN) : has(self.dynamicASN) && self.dynamicASN == 'internal')",message="ebgpMultiHop is for peers of another AS, and this one is of our own: leave it out; iBGP sessions may have routers between them anyway",fieldPath=".ebgpMultiHop"
// +kubebuilder:validation:XValidation:rule="!has(self.ebgpMultiHop) || !self.ebgpMultiHop || !has(self.ttlSecurity) || self.ttlSecurity == 0",message="ttlSecurity and ebgpMultiHop are both set: leave ebgpMultiHop out, and write into ttlSecurity how many hops away the peer is",fieldPath=".ttlSecurity"
type BGPPeerSpec struct {
	// myASN is the nodes' own AS number in this session.
	// +required
	// +kubebuilder:validation:Format=int64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	MyASN uint32 `json:"myASN"`

	// peerASN is the peer's AS number. Either it or dynamicASN is set.
	// +optional
	// +kubebuilder:validation:Format=int64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	PeerASN uint32 `json:"peerASN,omitempty"`

	// dynamicASN takes the peer's AS number from what it says of itself: "internal" is our own, "external" is any other.
	// +optional
	DynamicASN DynamicASN `json:"dynamicASN,omitempty"`

	// localASN is the AS number that this peer sees instead of myASN.
	// +optional
	// +kubebuilder:validation:Format=int64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	LocalASN uint32 `json:"localASN,omitempty"`

	// peerAddress is the peer's address. One of peerAddress, peerAddressFrom and interface is set.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isIP(self.split('%')[0])",messageExpression="'\"' + self + '\" is no IP address: write one such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0'",message="is no IP address"
	// +kubebuilder:validation:XValidation:rule="!self.contains('%') || !isIP(self.split('%')[0]) || (ip(self.split('%')[0]).family() == 6 && ip(self.split('%')[0]).isLinkLocalUnicast() && self.matches('^[^%]+%[^ /:*@%]{1,15}$'))",messageExpression="'\"' + self + '\" has an interface that can not be: only a link-local IPv6 address has one, and its name has 15 characters at most, as in fe80::1%eth0'",message="has an interface that can not be"
	// +kubebuilder:validation:XValidation:rule="!isIP(self.split('%')[0]) || ip(self.split('%')[0]).isGlobalUnicast() || ip(self.split('%')[0]).isLinkLocalUnicast() || ip(self.split('%')[0]).isLoopback()",messageExpression="self + ' is the address of no single host: write that of the router'",message="is the address of no single host"
	PeerAddress string `json:"peerAddress,omitempty"`

	// peerAddressFrom finds the peer's address on each node.
	// +optional
	PeerAddressFrom *PeerAddressSource `json:"peerAddressFrom,omitempty"`

	// interface is that at whose other end the peer is, found by its router advertisements (unnumbered BGP).
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^ /:*@%]{1,15}$')",messageExpression="'\"' + self + '\" is no name of an interface: write one name, of 15 characters at most, without the part from the @ that ip link shows'",message="is no name of an interface"
	Interface string `json:"interface,omitempty"`

	// peerPort is the peer's TCP port, 179 by default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	PeerPort uint16 `json:"peerPort,omitempty"`

	// sourceAddress is the node's address in this session.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isIP(self.split('%')[0])",messageExpression="'\"' + self + '\" is no IP address: write one such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0'",message="is no IP address"
	// +kubebuilder:validation:XValidation:rule="!self.contains('%') || !isIP(self.split('%')[0]) || (ip(self.split('%')[0]).family() == 6 && ip(self.split('%')[0]).isLinkLocalUnicast() && self.matches('^[^%]+%[^ /:*@%]{1,15}$'))",messageExpression="'\"' + self + '\" has an interface that can not be: only a link-local IPv6 address has one, and its name has 15 characters at most, as in fe80::1%eth0'",message="has an interface that can not be"
	// +kubebuilder:validation:XValidation:rule="!isIP(self.split('%')[0]) || ip(self.split('%')[0]).isGlobalUnicast() || ip(self.split('%')[0]).isLinkLocalUnicast() || ip(self.split('%')[0]).isLoopback()",messageExpression="self + ' is the address of no single host: write one that the node has'",message="is the address of no single host"
	SourceAddress string `json:"sourceAddress,omitempty"`

	// vrf is the VRF device, or another interface, that the session is bound to.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^ /:*@%]{1,15}$')",messageExpression="'\"' + self + '\" is no name of a VRF or an interface: write one name, of 15 characters at most, without the part from the @ that ip link shows'",message="is no name of a VRF or an interface"
	VRF string `json:"vrf,omitempty"`

	// passive waits for the peer to connect. The speaker must listen: see bgp.listenPort of the chart.
	// +optional
	Passive bool `json:"passive,omitempty"`

	// holdTime is after how long without a message the session is given up: 0 for never, or at least 3s. The default is 90s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && (duration(self) == duration('0s') || (duration(self) >= duration('3s') && duration(self) <= duration('65535s')))",messageExpression="'\"' + self + '\" is no hold time: write 0 for never, or whole seconds from 3s to 65535s, such as 90s or 1m30s'",message="is no hold time"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// keepaliveTime is the time between messages, a third of holdTime by default.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && duration(self) <= duration('65535s')",messageExpression="'\"' + self + '\" is no keepalive time: write whole seconds from 1s to 65535s, or 0 with a holdTime of 0, such as 30s'",message="is no keepalive time"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// connectTime is the longest time between attempts to connect, whole seconds from 1s to 65535s, 10s by default.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && duration(self) >= duration('1s') && duration(self) <= duration('65535s')",messageExpression="'\"' + self + '\" is no connect time: write whole seconds from 1s to 65535s, such as 10s'",message="is no connect time"
	ConnectTime *metav1.Duration `json:"connectTime,omitempty"`

	// routerID is the node's BGP identifier. All peers of one node must agree on it. The default is the node's IPv4 address.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip(self).family() == 4 && !ip(self).isUnspecified()",messageExpression="'\"' + self + '\" is no router ID: write an IPv4 address such as 192.0.2.11, also if the nodes have IPv6 only'",message="is no router ID"
	RouterID string `json:"routerID,omitempty"`

	// nodeSelectors match, by their labels, the nodes that have a session. One of them must match; with none, every node has.
	// +optional
	NodeSelectors []metav1.LabelSelector `json:"nodeSelectors,omitempty"`

	// password protects the session by TCP MD5 (RFC 2385). Prefer passwordSecret: everybody who may read the peer can read this.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=80
	Password string `json:"password,omitempty"`

	// passwordSecret is the Secret, of type kubernetes.io/basic-auth and in the namespace of the installation, whose entry
	// "password" is the password.
	// +optional
	PasswordSecret *PasswordSecret `json:"passwordSecret,omitempty"`

	// bfdProfile is the name of the BFDProfile that the peer is watched with; without it, there is no BFD session.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a BFDProfile: write it in lower case, with letters, digits, dashes and dots'",message="is no name of a BFDProfile"
	BFDProfile string `json:"bfdProfile,omitempty"`

	// enableGracefulRestart has the peer keep its routes while the speaker restarts (RFC 4724).
	// +optional
	EnableGracefulRestart bool `json:"enableGracefulRestart,omitempty"`

	// gracefulRestartTime is for how long, whole seconds from 1s to 4095s, 120s by default.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && duration(self) >= duration('1s') && duration(self) <= duration('4095s')",messageExpression="'\"' + self + '\" is no graceful restart time: write whole seconds from 1s to 4095s, such as 120s or 2m'",message="is no graceful restart time"
	GracefulRestartTime *metav1.Duration `json:"gracefulRestartTime,omitempty"`

	// gracefulShutdown is for how long routes carry the community GRACEFUL_SHUTDOWN (RFC 8326) before they are withdrawn on purpose,
	// up to 20s, so that the peer finds others first. With 0, the default, they are withdrawn at once.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^(0|([0-9]{1,5}[hms]){1,3})$') && duration(self) <= duration('20s')",messageExpression="'\"' + self + '\" is no graceful shutdown time: write whole seconds from 0s to 20s, such as 10s'",message="is no graceful shutdown time"
	GracefulShutdown *metav1.Duration `json:"gracefulShutdown,omitempty"`

	// ebgpMultiHop allows routers between the node and a peer of another AS.
	// +optional
	EBGPMultiHop bool `json:"ebgpMultiHop,omitempty"`

	// ttlSecurity drops packets that come from further away than this many hops (GTSM, RFC 5082). The peer must use it too.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=254
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
//
// +kubebuilder:validation:XValidation:rule="has(self.defaultGateway) != has(self.nodeAnnotation)",messageExpression="has(self.nodeAnnotation) ? 'defaultGateway and nodeAnnotation are both set: keep one of the two' : 'says nothing: set defaultGateway or nodeAnnotation'",message="set either defaultGateway or nodeAnnotation"
type PeerAddressSource struct {
	// defaultGateway takes the next hop of the node's default route of this family, "IPv4" or "IPv6".
	// +kubebuilder:validation:Enum=IPv4;IPv6
	// +optional
	DefaultGateway string `json:"defaultGateway,omitempty"`

	// nodeAnnotation takes the value of the annotation of this name on the Node.
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of an annotation: write one such as example.com/top-of-rack'",message="is no name of an annotation"
	// +optional
	NodeAnnotation string `json:"nodeAnnotation,omitempty"`
}

// PasswordSecret names a Secret in the namespace of the installation.
type PasswordSecret struct {
	// name of the Secret.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a Secret: write it in lower case, with letters, digits, dashes and dots'",message="is no name of a Secret"
	// +required
	Name string `json:"name"`

	// namespace may be left out; only the namespace of the installation is accepted.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a namespace: leave it out; the Secret is in the namespace of the installation'",message="is no name of a namespace"
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
