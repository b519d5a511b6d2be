package gobgp

import (
	"net/netip"

	"github.com/osrg/gobgp/v4/api"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

var (
	family4 = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	family6 = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

// enginePeer is what GoBGP is told about a peer that it knows by an address on the loopback interface.
func enginePeer(p *bgp.Peer, address netip.Addr) *api.Peer {
	out := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: address.String(), LocalAsn: p.LocalASN, PeerAsn: p.PeerASN},
		Transport: &api.Transport{PassiveMode: true},
		// GoBGP takes the lesser of its own hold time and the router's. One of 0 stands in the messages only: see message.go.
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(p.HoldTime.Seconds()), KeepaliveInterval: uint64(p.KeepaliveTime.Seconds()),
		}},
		// On the loopback interface a TTL is of no use, but 1, GoBGP's choice for eBGP, suffices.
		GracefulRestart: &api.GracefulRestart{Enabled: p.RestartTime > 0, RestartTime: uint32(p.RestartTime.Seconds())},
	}
	add := func(family *api.Family) {
		out.AfiSafis = append(out.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: p.RestartTime > 0}},
		})
	}
	if p.IPv4 {
		add(family4)
	}
	if p.IPv6 {
		add(family6)
	}
	return out
}

// sameSession says whether a and b can share one session: everything that they differ in is either not the router's to know or
// can be told it at any time.
func sameSession(a, b *bgp.Peer) bool {
	x, y := *a, *b
	for _, p := range []*bgp.Peer{&x, &y} {
		p.NextHop4, p.NextHop6 = netip.Addr{}, netip.Addr{}
		p.ConnectTime = 0
		p.KeepaliveTime = 0 // in force with the next session: nobody else needs to know
	}
	return x == y
}
