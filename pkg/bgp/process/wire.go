package process

import (
	"net/netip"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// order is what the speaker tells the child: a Change, or if Peer is set, that its session is to be reset.
type order struct {
	Number    uint64 // of the Change, from 1
	Change    change
	Peer, Why string
}

// report is what the child tells the speaker.
type report struct {
	Applied     uint64 // number of the Change that has been applied; 0 if the report is not about that
	HasSessions bool   // Sessions are all that there are
	Sessions    []bgp.Session
}

// change is a bgp.Change with each list of peers and each set of attributes said only once, so that the child shares them as the speaker
// does: ten thousand routes mostly have the same.
type change struct {
	RouterID   netip.Addr
	ListenPort uint16
	Restarting bool
	Peers      []bgp.Peer
	GonePeers  []string
	GoneRoutes []netip.Prefix
	Lists      [][]string
	Attributes []bgp.Attributes
	Routes     []route
}

type route struct {
	Prefix netip.Prefix
	Paths  []path
}

type path struct {
	Peers      int // index into Lists
	Attributes int // index into Attributes, plus 1; 0 for none
}

func pack(c bgp.Change) change {
	w := change{RouterID: c.RouterID, ListenPort: c.ListenPort, Restarting: c.Restarting, Peers: c.Peers, GonePeers: c.GonePeers, GoneRoutes: c.GoneRoutes}
	attributes := map[*bgp.Attributes]int{nil: 0}
	lists := map[string]int{}
	w.Routes = make([]route, 0, len(c.Routes))
	for _, r := range c.Routes {
		packed := route{Prefix: r.Prefix, Paths: make([]path, 0, len(r.Paths))}
		for _, p := range r.Paths {
			a, known := attributes[p.Attributes]
			if !known {
				w.Attributes = append(w.Attributes, *p.Attributes)
				a = len(w.Attributes)
				attributes[p.Attributes] = a
			}
			key := strings.Join(p.Peers, " ") // no object's name has a space
			list, known := lists[key]
			if !known {
				list = len(w.Lists)
				lists[key] = list
				w.Lists = append(w.Lists, p.Peers)
			}
			packed.Paths = append(packed.Paths, path{Peers: list, Attributes: a})
		}
		w.Routes = append(w.Routes, packed)
	}
	return w
}

func (w change) unpack() bgp.Change {
	c := bgp.Change{RouterID: w.RouterID, ListenPort: w.ListenPort, Restarting: w.Restarting, Peers: w.Peers, GonePeers: w.GonePeers, GoneRoutes: w.GoneRoutes}
	if len(w.Routes) > 0 {
		c.Routes = make([]bgp.Route, 0, len(w.Routes))
	}
	for _, r := range w.Routes {
		unpacked := bgp.Route{Prefix: r.Prefix}
		for _, p := range r.Paths {
			q := bgp.Path{Peers: w.Lists[p.Peers]}
			if p.Attributes > 0 {
				q.Attributes = &w.Attributes[p.Attributes-1]
			}
			unpacked.Paths = append(unpacked.Paths, q)
		}
		c.Routes = append(c.Routes, unpacked)
	}
	return c
}
