package speaker

import (
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/bgp/place"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Network tells where peers are, as this node's kernel sees it.
type Network interface {
	// Locate tells how packets get to a peer.
	Locate(peer netip.Addr, device string) (place.Place, error)
	// Gateways returns the next hops of the default routes; invalid ones if there are none.
	Gateways() (v4, v6 netip.Addr)
	// Own returns this node's addresses, link-local ones with their zones.
	Own() []netip.Addr
	// Neighbours returns the peers at the other end of interfaces, by the interfaces' names. It looks for them from then on.
	Neighbours(interfaces []string) map[string]netip.Addr
	// Faults says of interfaces where nobody is why.
	Faults() map[string]string
	// Changed says that some answer may be another now.
	Changed() <-chan struct{}
}

// NoPassword is the reason why a node has no session with a peer whose Secret can't be used.
const NoPassword announce.Reason = "NoPassword"

// sessions are the BGP and BFD sessions that this node is to have, and what they were made of.
type sessions struct {
	annotations map[string]string
	passwords   map[string]string
	// What the network said last outlives that: a way that is gone for a moment is no reason to touch a session, which finds out itself
	// whether its peer is still there.
	nodeID   netip.Addr // the router ID if no peer gives the node one; it stays, because another one ends all sessions
	gateways map[string]netip.Addr
	places   map[string]located // by the peer's name

	routerID netip.Addr
	peers    []bgp.Peer             // sorted by name
	bfd      map[string]bfd.Session // by the peer's name
	refused  map[string]announce.Refusal
	// told4 and told6 are the names of the peers that are told of a family, sorted.
	told4, told6 []string
	// shutdown is for how long peers want to be told that routes are about to go, and restarts says who keeps them over a restart.
	shutdown map[string]time.Duration
	restarts map[string]bool
}

// located is where a peer was found.
type located struct {
	peer   netip.Addr
	device string
	place  place.Place
}

// resolve finds out which sessions a node is to have, and where the peers are. What is not known of them is as in the old ones.
func resolve(node *announce.Node, annotations map[string]string, all []*config.BGPPeer, passwords map[string]string, c RoutingConfig, old *sessions) sessions {
	s := sessions{
		annotations: annotations, passwords: passwords, nodeID: old.nodeID, gateways: map[string]netip.Addr{}, places: map[string]located{},
		bfd: map[string]bfd.Session{}, shutdown: map[string]time.Duration{}, restarts: map[string]bool{},
	}
	selected := announce.PeersOf(node, all)
	site := announce.Site{Listens: c.ListenPort != 0, Found: s.find(selected, c.Network, old)}
	if len(selected) > 0 {
		site.Own = c.Network.Own()
		if !s.nodeID.IsValid() {
			s.nodeID = routerID(node.Name, c.NodeIP, site.Own)
		}
	}
	mine, refused := announce.SessionsOf(node, site, selected)
	s.refused = refused
	s.routerID = s.nodeID
	faults := c.Network.Faults()
	for _, p := range selected {
		r, ok := refused[p.Name]
		if ok && r.Reason == announce.NoPeerAddress && p.Interface != "" && faults[p.Interface] != "" {
			r.Message = "spec.interface is " + p.Interface + ": " + faults[p.Interface]
			refused[p.Name] = r
		}
		// Also of a peer whose address or password comes later: that is not to end the other sessions.
		if p.RouterID.IsValid() && (!ok || r.Reason == announce.NoPeerAddress) {
			s.routerID = p.RouterID
		}
	}
	for _, p := range mine {
		peer, refusal := build(p, site.Found[p.Name], passwords)
		if refusal.Reason != "" {
			s.refused[p.Name] = refusal
			continue
		}
		at := s.locate(&peer, c.Network, old)
		peer.NextHop4, peer.NextHop6 = at.NextHop4, at.NextHop6
		if peer.IPv4 {
			s.told4 = append(s.told4, p.Name)
		}
		if peer.IPv6 {
			s.told6 = append(s.told6, p.Name)
		}
		if p.BFD != nil {
			s.bfd[p.Name] = bfdSession(p, &peer, at)
		}
		if p.ShutdownTime > 0 {
			s.shutdown[p.Name] = p.ShutdownTime
		}
		s.restarts[p.Name] = p.RestartTime > 0
		s.peers = append(s.peers, peer)
	}
	return s
}

// find returns the addresses of the peers whose BGPPeer does not give one.
func (s *sessions) find(peers []*config.BGPPeer, network Network, old *sessions) map[string]netip.Addr {
	found := map[string]netip.Addr{}
	var interfaces []string
	for _, p := range peers {
		var a netip.Addr
		switch {
		case p.Gateway != "":
			a = s.gateway(p.Gateway, network, old)
		case p.Annotation != "":
			a = annotated(s.annotations[p.Annotation], p.Device) // without an address, the peer is refused
		case p.Interface != "":
			interfaces = append(interfaces, p.Interface)
		}
		if a.IsValid() {
			found[p.Name] = a
		}
	}
	neighbours := network.Neighbours(interfaces)
	for _, p := range peers {
		if a, ok := neighbours[p.Interface]; ok && p.Interface != "" {
			found[p.Name] = a
		}
	}
	return found
}

// annotated returns the address in an annotation, which nobody has validated; an invalid one if no peer can have it.
func annotated(text, device string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	a = a.Unmap()
	somewhere := a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" && device == ""
	if a.IsUnspecified() || a.IsMulticast() || somewhere || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}
	}
	return a
}

// gateway returns the next hop of the default route of a family, or without such a route the last that there was.
func (s *sessions) gateway(family string, network Network, old *sessions) netip.Addr {
	if a, known := s.gateways[family]; known {
		return a
	}
	v4, v6 := network.Gateways()
	for family, a := range map[string]netip.Addr{"IPv4": v4, "IPv6": v6} {
		if !a.IsValid() {
			a = old.gateways[family]
		}
		s.gateways[family] = a
	}
	return s.gateways[family]
}

// locate returns how packets get to a peer, or while there is no way, how they did. Where there never was one, the session says so itself.
func (s *sessions) locate(p *bgp.Peer, network Network, old *sessions) place.Place {
	is := located{peer: p.Address, device: p.Device}
	var err error
	if is.place, err = network.Locate(p.Address, p.Device); err != nil {
		was := old.places[p.Name]
		if was.peer != is.peer || was.device != is.device {
			return place.Place{}
		}
		is = was
	}
	s.places[p.Name] = is
	return is.place
}

// build returns the session with one peer, without next hops. found is its address if the BGPPeer gives none.
func build(p *config.BGPPeer, found netip.Addr, passwords map[string]string) (bgp.Peer, announce.Refusal) {
	peer := bgp.Peer{
		Name: p.Name, Address: p.Address, Port: p.Port, LocalASN: p.LocalASN, PeerASN: p.PeerASN, Source: p.Source, Device: p.Device,
		Passive: p.Passive, Multihop: p.Multihop, TTLSecurity: p.TTLSecurity, Password: p.Password,
		HoldTime: p.HoldTime, KeepaliveTime: p.KeepaliveTime, ConnectTime: p.ConnectTime, RestartTime: p.RestartTime,
	}
	if !peer.Address.IsValid() {
		peer.Address = found
	}
	if p.PasswordSecret != "" {
		password, ok := passwords[p.PasswordSecret]
		if !ok || password == "" {
			return peer, announce.Refusal{Reason: NoPassword, Message: fmt.Sprintf(
				"spec.passwordSecret is %s, but there is no Secret of that name, of type kubernetes.io/basic-auth and with an entry \"password\", "+
					"in the namespace that Steelyard is installed in: create it", p.PasswordSecret)}
		}
		peer.Password = password
	}
	both := p.DualStack || p.Interface != ""
	peer.IPv4, peer.IPv6 = both || peer.Address.Is4(), both || peer.Address.Is6()
	return peer, announce.Refusal{}
}

// bfdSession returns the BFD session with a peer. One of another AS is on our network unless something says that it may be farther away,
// whatever the routes to it are while an interface is down.
func bfdSession(p *config.BGPPeer, peer *bgp.Peer, at place.Place) bfd.Session {
	near := p.PeerASN != p.LocalASN && p.TTLSecurity <= 1
	return bfd.Session{
		Peer: peer.Address, Local: peer.Source, Device: peer.Device, Multihop: p.Multihop || at.Routed && !near,
		Transmit: p.BFD.Transmit, Receive: p.BFD.Receive, Multiplier: p.BFD.Multiplier, Passive: p.BFD.Passive, MinimumTTL: p.BFD.MinimumTTL,
	}
}

// routerID returns an identifier for a node whose peers don't give it one: its IPv4 address, or on a node without one a number made of its
// name (RFC 6286).
func routerID(node string, ip netip.Addr, own []netip.Addr) netip.Addr {
	if ip.Is4() {
		return ip
	}
	for _, a := range own {
		if a.Is4() && a.IsGlobalUnicast() {
			return a
		}
	}
	n := crc32.ChecksumIEEE([]byte(node))
	return netip.AddrFrom4([4]byte{byte(n>>24) | 1, byte(n >> 16), byte(n >> 8), byte(n)}) // never 0.0.0.0
}

// logNews logs why sessions are refused that were not, or for another reason.
func (s *sessions) logNews(old sessions, log *slog.Logger) {
	for name, r := range s.refused {
		if old.refused[name] != r {
			log.Warn("no BGP session with this peer", "peer", name, "reason", r.Reason, "message", r.Message)
		}
	}
	for i := range s.peers {
		p := &s.peers[i]
		if !slices.ContainsFunc(old.peers, func(o bgp.Peer) bool { return o.Name == p.Name && o.Address == p.Address }) {
			log.Info("BGP session wanted", "peer", p.Name, "address", p.Address, "asn", p.PeerASN, "as", p.LocalASN)
		}
	}
}
