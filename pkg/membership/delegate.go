package membership

import (
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls: on its packet path or with its lock held. So nothing here waits, and nothing
// that is called from here calls memberlist.
type delegate struct{ list *List }

func (d *delegate) NodeMeta(limit int) []byte { return d.list.meta(limit, false) }

func (d *delegate) NotifyMsg(b []byte) {
	m, err := decodeMessage(b)
	if err != nil {
		d.list.log.Debug("message from another speaker not understood", "bytes", len(b), "error", err)
		return
	}
	if !m.Kind.direct() {
		d.list.gossip(slices.Clone(b))
	}
	if m.Kind != kindReplica {
		d.list.core.receive(time.Now(), m)
		return
	}
	select {
	case d.list.merges <- m.Body:
	default:
		d.list.metrics.dropped.WithLabelValues("merge").Inc() // the next full exchange brings it
	}
}

func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.list.queue.GetBroadcasts(overhead, limit)
}

func (d *delegate) LocalState(bool) []byte { return d.list.config.Replica.State() }

func (d *delegate) MergeRemoteState(state []byte, _ bool) { d.list.config.Replica.Merge(state) }

func (d *delegate) NotifyJoin(n *memberlist.Node)   { d.listed(n, true) }
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.listed(n, false) }

func (d *delegate) listed(n *memberlist.Node, joined bool) {
	meta, err := decodeProfile(n.Meta)
	if err != nil {
		d.list.log.Warn("metadata of another speaker not understood: all speakers have to run versions that fit together", "member", n.Name)
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	d.list.core.listed(time.Now(), n.Name, netip.AddrPortFrom(addr.Unmap(), n.Port), meta, joined)
}

func (d *delegate) NotifyLeave(n *memberlist.Node) { d.list.core.unlisted(time.Now(), n.Name) }

// broadcast is a message in memberlist's gossip queue; none makes another one obsolete.
type broadcast []byte

func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                       { return b }
func (b broadcast) Finished()                             {}
func (b broadcast) UniqueBroadcast()                      {}

// recent remembers which messages were passed on lately.
type recent struct {
	mu       sync.Mutex
	seed     maphash.Seed
	now, old map[uint64]bool
	turned   time.Time
}

// passOnAgainAfter is longer than a message goes round.
const passOnAgainAfter = 10 * time.Second

func (r *recent) first(now time.Time, encoded []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.turned) > passOnAgainAfter {
		if r.now == nil {
			r.seed = maphash.MakeSeed()
		}
		r.old, r.now, r.turned = r.now, map[uint64]bool{}, now
	}
	hash := maphash.Bytes(r.seed, encoded)
	if r.now[hash] || r.old[hash] {
		return false
	}
	r.now[hash] = true
	return true
}

// conflicts reports speakers that share a name.
type conflicts struct {
	log  *slog.Logger
	once onceInAWhile
}

func (c *conflicts) NotifyConflict(existing, other *memberlist.Node) {
	if c.once.allow(time.Now(), other.Name+other.Address()) {
		c.log.Warn("two speakers use one node name: give each node its own, or wait if the node has just changed its address",
			"member", other.Name, "address", existing.Address(), "other", other.Address())
	}
}

// onceInAWhile keeps a repeated warning from flooding the log.
type onceInAWhile struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const warnAgainAfter = 10 * time.Minute

func (o *onceInAWhile) allow(now time.Time, key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, ok := o.last[key]; ok && now.Sub(last) < warnAgainAfter {
		return false
	}
	if o.last == nil || len(o.last) > 1000 {
		o.last = map[string]time.Time{}
	}
	o.last[key] = now
	return true
}
