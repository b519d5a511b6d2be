package announce

import "strings"

// Words are what a reason means to a person, and what to do about it.
type Words struct {
	// What can stand after a colon.
	What string
	// Mend is empty where nothing has to be done. NODE in it stands for the names of the nodes.
	Mend string
}

// MendOn returns what to do, with the names of the nodes in it unless they are too many to read.
func (w Words) MendOn(nodes []string) string {
	const most = 5
	if len(nodes) > most {
		return w.Mend
	}
	return strings.ReplaceAll(w.Mend, "NODE", strings.Join(nodes, " "))
}

// Say returns the words for a reason; one that it does not know stands for itself.
func Say(reason Reason) Words {
	if w, ok := words[reason]; ok {
		return w
	}
	return Words{What: string(reason)}
}

var words = map[Reason]Words{
	NoServingEndpoint: {
		"no endpoint of the Service serves",
		"see that pods match the Service's spec.selector and that they are ready: kubectl get pods -o wide, kubectl get endpointslices",
	},
	NoAdvertisement: {
		"no advertisement selects both the pool and the Service",
		"create an L2Advertisement or a BGPAdvertisement for the pool, or correct the selectors of one: kubectl get l2advertisements.steelyard.io,bgpadvertisements.steelyard.io -o wide",
	},
	SharedWithServiceSelector: {
		"the Service may share its address, and an L2Advertisement selects Services by their labels; neighbours ask for an address, so Services on one address can't be told apart",
		"take spec.serviceSelectors out of the L2Advertisement, or the annotation steelyard.io/allow-shared-ip from the Service",
	},
	NoEligibleNode: {
		"every node is refused for a reason of its own",
		"mend what keeps one of the nodes away",
	},
	AddressConflict: {
		"another machine on the network has the address",
		"take the address from that machine; or take it out of the pool (spec.addresses), and the Service gets another one",
	},
	NoLiveSpeaker: {
		"no live speaker runs on the node",
		"see why: kubectl get pods -A -o wide -l app.kubernetes.io/name=steelyard,app.kubernetes.io/component=speaker, then kubectl logs",
	},
	Leaving: {
		"the node's speaker is about to stop",
		"wait for the next one to start",
	},
	NetworkUnavailable: {
		"the node's condition NetworkUnavailable is True",
		"see what the network plugin says: kubectl describe node NODE",
	},
	ExcludedByLabel: {
		"the node has the label node.kubernetes.io/exclude-from-external-load-balancers",
		"remove it: kubectl label node NODE node.kubernetes.io/exclude-from-external-load-balancers-; or set speaker.ignoreExcludeLB in the chart's values",
	},
	NotSelected: {
		"no advertisement selects the node",
		"correct spec.nodeSelectors of the advertisement, or the labels of the node: kubectl get node NODE --show-labels",
	},
	NoInterface: {
		"the node has none of the interfaces that the advertisements name, or none that is up",
		"correct spec.interfaces of the L2Advertisement, or take it out to use all; the speaker's log names the interfaces that it uses",
	},
	NoLocalEndpoint: {
		"externalTrafficPolicy is Local, and no endpoint on the node serves",
		"run a ready pod on the node, or set spec.externalTrafficPolicy: Cluster",
	},
	NoPeer: {
		"the node has a session with none of the BGPPeers that the advertisements are for",
		"correct spec.peers of the BGPAdvertisement or spec.nodeSelectors of the BGPPeer, or create a BGPPeer for the address's family, or set spec.dualStackAddressFamily of one",
	},
	NoListener: {
		"the router is to connect to the node, where nothing listens",
		"set bgp.listenPort in the chart's values, or take spec.passive out of the BGPPeer",
	},
	NoPeerAddress: {
		"the router's address is not known on the node",
		"set spec.peerAddress of the BGPPeer, or see that the node has what spec.peerAddressFrom or spec.interface looks for",
	},
	OwnAddress: {
		"the router's address is one of the node's own",
		"correct spec.peerAddress of the BGPPeer, or keep it from the node with spec.nodeSelectors",
	},
	SameAddress: {
		"the node has a session with another BGPPeer at that address",
		"delete one of the two BGPPeers, or keep them apart with spec.nodeSelectors",
	},
	SameInterface: {
		"the node has a session with another BGPPeer over that interface",
		"delete one of the two BGPPeers, or keep them apart with spec.nodeSelectors",
	},
	OtherRouterID: {
		"another BGPPeer gives the node another router ID",
		"make spec.routerID of the node's BGPPeers equal, or set it in one only",
	},
	SessionUp: {What: "the session with the router is up"},
	SessionDown: {
		"the session with the router is down",
		"see the error: kubectl get bgpsessions.steelyard.io; compare AS numbers, addresses and password with the router's, and that TCP port 179 is open between them",
	},
	OnlyCandidate:   {What: "no other node may have it"},
	Holder:          {What: "the node has it already"},
	Preferred:       {What: "spec.preferredNodeSelectors give the node the highest weight"},
	FewestAddresses: {What: "the node has fewer addresses than the others"},
	LowestHash:      {What: "the other nodes are its equals, and a hash of node and address decided"},
	Probed:          {What: "no other machine on the network has the address"},
	Superseded:      {What: "another speaker has claimed it"},
	NoSuccessor:     {What: "the node should not announce it any more, and nobody took it over in time", Mend: "mend what keeps the other nodes away"},
	NotCarried: {
		"the node's rules for it are not in its kernel",
		"see the log of the node's speaker for what the kernel refused",
	},
	NoService: {What: "no Service has it any more"},
}
