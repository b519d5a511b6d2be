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

// resolve finds out which sessions a node is to have, and where the peers are.
func resolve(node *announce.Node, annotations map[string]string, all []*config.BGPPeer, passwords map[string]string, c RoutingConfig) sessions {
	s := sessions{
		annotations: annotations, passwords: passwords, bfd: map[string]bfd.Session{},
		shutdown: map[string]time.Duration{}, restarts: map[string]bool{},
	}
	selected := announce.PeersOf(node, all)
	site := announce.Site{Listens: c.ListenPort != 0, Found: find(selected, annotations, c.Network)}
	if len(selected) > 0 {
		site.Own = c.Network.Own()
	}
	mine, refused := announce.SessionsOf(node, site, selected)
	s.refused = refused
	faults := c.Network.Faults()
	for _, p := range selected {
		if r, ok := refused[p.Name]; ok && r.Reason == announce.NoPeerAddress && p.Interface != "" && faults[p.Interface] != "" {
			r.Message = "spec.interface is " + p.Interface + ": " + faults[p.Interface]
			refused[p.Name] = r
		}
	}
	s.routerID = routerID(node.Name, c.NodeIP, site.Own)
	for _, p := range mine {
		peer, session, refusal := build(p, site.Found[p.Name], passwords, c.Network)
		if refusal.Reason != "" {
			s.refused[p.Name] = refusal
			continue
		}
		if p.RouterID.IsValid() {
			s.routerID = p.RouterID
		}
		if peer.IPv4 {
			s.told4 = append(s.told4, p.Name)
		}
		if peer.IPv6 {
			s.told6 = append(s.told6, p.Name)
		}
		if p.BFD != nil {
			s.bfd[p.Name] = session
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
func find(peers []*config.BGPPeer, annotations map[string]string, network Network) map[string]netip.Addr {
	found := map[string]netip.Addr{}
	var interfaces []string
	for _, p := range peers {
		var a netip.Addr
		switch {
		case p.Gateway != "":
			v4, v6 := network.Gateways()
			if a = v6; p.Gateway == "IPv4" {
				a = v4
			}
		case p.Annotation != "":
			a, _ = netip.ParseAddr(annotations[p.Annotation]) // without an address, the peer is refused
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

// build returns the sessions with one peer. found is its address if the BGPPeer gives none.
func build(p *config.BGPPeer, found netip.Addr, passwords map[string]string, network Network) (bgp.Peer, bfd.Session, announce.Refusal) {
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
			return peer, bfd.Session{}, announce.Refusal{Reason: NoPassword, Message: fmt.Sprintf(
				"spec.passwordSecret is %s, but there is no Secret of that name, of type kubernetes.io/basic-auth and with an entry \"password\", "+
					"in the namespace that Steelyard is installed in: create it", p.PasswordSecret)}
		}
		peer.Password = password
	}
	both := p.DualStack || p.Interface != ""
	peer.IPv4, peer.IPv6 = both || peer.Address.Is4(), both || peer.Address.Is6()
	// Where there is no way to the peer, the session says so itself; what is not known meanwhile is known once there is one.
	at, err := network.Locate(peer.Address, peer.Device)
	if err == nil {
		peer.NextHop4, peer.NextHop6 = at.NextHop4, at.NextHop6
	}
	var session bfd.Session
	if p.BFD != nil {
		session = bfd.Session{
			Peer: peer.Address, Local: peer.Source, Device: peer.Device, Multihop: p.Multihop || at.Routed,
			Transmit: p.BFD.Transmit, Receive: p.BFD.Receive, Multiplier: p.BFD.Multiplier, Passive: p.BFD.Passive, MinimumTTL: p.BFD.MinimumTTL,
		}
	}
	return peer, session, announce.Refusal{}
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

// watched returns the BFD sessions.
func (s *sessions) watched() []bfd.Session {
	all := make([]bfd.Session, 0, len(s.bfd))
	for i := range s.peers {
		if b, ok := s.bfd[s.peers[i].Name]; ok {
			all = append(all, b)
		}
	}
	return all
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
