package speaker

import (
	"net/netip"
	"sync"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// BFD is what routing needs of the sessions that watch peers; bfd.Speaker is one.
type BFD interface {
	Sync([]bfd.Session)
	Statuses() []bfd.Status
}

// downs ends the BGP sessions of peers that BFD has lost, without waiting for anybody.
type downs struct {
	engine  bgp.Engine
	changed chan struct{}

	mu     sync.Mutex
	byPeer map[target]string // the names of BGPPeers
	failed map[string]bool
}

// target is what tells BFD sessions apart here; SessionsOf sees to it that no two peers have one in common.
type target struct {
	peer   netip.Addr
	device string
}

func newDowns(e bgp.Engine) *downs {
	return &downs{engine: e, changed: make(chan struct{}, 1), byPeer: map[target]string{}, failed: map[string]bool{}}
}

// watch says whose sessions they are.
func (d *downs) watch(sessions map[string]bfd.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.byPeer)
	for name, s := range sessions {
		d.byPeer[target{s.Peer, s.Device}] = name
	}
	for name := range d.failed {
		if _, ok := sessions[name]; !ok {
			delete(d.failed, name)
		}
	}
}

// Changed is called by BFD with each change of a session.
func (d *downs) Changed(s bfd.Status) {
	d.mu.Lock()
	name, ok := d.byPeer[target{s.Peer, s.Device}]
	down := ok && s.Failed && !d.failed[name]
	if ok {
		d.failed[name] = s.Failed
	}
	d.mu.Unlock()
	if down {
		d.engine.Reset(name, "BFD: "+s.Diagnostic.String())
	}
	nudge(d.changed)
}
