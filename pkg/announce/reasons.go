package announce

// Reason says why a node announces an address, or why it does not. Event reasons, condition reasons and metric labels are these
// words.
type Reason string

// Why nobody announces a Service's address.
const (
	// NoServingEndpoint: no endpoint of the Service serves, on any node.
	NoServingEndpoint Reason = "NoServingEndpoint"
	// NoAdvertisement: no advertisement of the protocol selects both the address's pool and the Service.
	NoAdvertisement Reason = "NoAdvertisement"
	// SharedWithServiceSelector: the Service shares its address, and an L2Advertisement tells Services apart by their labels. The
	// neighbours ask for the address, not for the Service, so the two can't both be honoured.
	SharedWithServiceSelector Reason = "SharedWithServiceSelector"
	// NoEligibleNode: there are advertisements, but each node is refused for a reason of its own.
	NoEligibleNode Reason = "NoEligibleNode"
	// AddressConflict: another machine on the network answers for the address.
	AddressConflict Reason = "AddressConflict"
)

// Why a node is no candidate for a Service's address.
const (
	// NoLiveSpeaker: no live speaker runs on the node.
	NoLiveSpeaker Reason = "NoLiveSpeaker"
	// Leaving: the node's speaker is about to stop.
	Leaving Reason = "Leaving"
	// NetworkUnavailable: the node's condition NetworkUnavailable is True.
	NetworkUnavailable Reason = "NetworkUnavailable"
	// ExcludedByLabel: the node carries node.kubernetes.io/exclude-from-external-load-balancers.
	ExcludedByLabel Reason = "ExcludedByLabel"
	// NotSelected: no advertisement selects the node.
	NotSelected Reason = "NotSelected"
	// NoInterface: the node has none of the interfaces that the advertisements name.
	NoInterface Reason = "NoInterface"
	// NoLocalEndpoint: externalTrafficPolicy is Local and no endpoint on the node serves.
	NoLocalEndpoint Reason = "NoLocalEndpoint"
)

// Why a node does not announce an address by BGP, beside reasons from above.
const (
	// NoPeer: the node has a session with none of the BGPPeers that the advertisements are for.
	NoPeer Reason = "NoPeer"
)

// Why a node has no session with a BGPPeer that selects it.
const (
	// NoListener: the peer is to connect to the node, where nothing listens.
	NoListener Reason = "NoListener"
	// NoPeerAddress: the peer's address is not known on the node.
	NoPeerAddress Reason = "NoPeerAddress"
	// OwnAddress: the peer's address is one of the node's own.
	OwnAddress Reason = "OwnAddress"
	// SameAddress: the node has a session with another BGPPeer at that address.
	SameAddress Reason = "SameAddress"
	// SameInterface: the node has a session with another BGPPeer over that interface.
	SameInterface Reason = "SameInterface"
	// OtherRouterID: another BGPPeer gives the node another router ID.
	OtherRouterID Reason = "OtherRouterID"
)

// What becomes of a node's session with a BGPPeer.
const (
	// SessionUp: it is established.
	SessionUp Reason = "BGPSessionUp"
	// SessionDown: it is not any more.
	SessionDown Reason = "BGPSessionDown"
)

// Why a candidate was elected.
const (
	// OnlyCandidate: there is no other.
	OnlyCandidate Reason = "OnlyCandidate"
	// Holder: it has the address already.
	Holder Reason = "Holder"
	// Preferred: the preferredNodeSelectors give it the highest weight.
	Preferred Reason = "Preferred"
	// FewestAddresses: it holds fewer addresses than the others.
	FewestAddresses Reason = "FewestAddresses"
	// LowestHash: the others are its equals, and the hash of node and address decided.
	LowestHash Reason = "LowestHash"
)

// Why a node begins or stops to announce an address.
const (
	// Probed: the address is fresh, and no other machine on the network has it.
	Probed Reason = "Probed"
	// Superseded: another speaker has claimed it.
	Superseded Reason = "Superseded"
	// NoSuccessor: the node should not announce it any more, and nobody took it over in time.
	NoSuccessor Reason = "NoSuccessor"
	// NotCarried: the node's own rules for it are not in the kernel.
	NotCarried Reason = "NotCarried"
	// NoService: no Service has it any more.
	NoService Reason = "NoService"
)
