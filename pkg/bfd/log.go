package bfd

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

const (
	// quietTime is how long nothing more is logged about a source whose packets are dropped.
	quietTime = time.Minute
	// quietSources is about how many sources are remembered for that. Whoever forges more has them all logged, at debug level.
	quietSources = 1024
)

// quiet logs dropped packets, not more often than once a minute for each source.
type quiet struct {
	log    *slog.Logger
	logged map[netip.Addr]time.Time
}

func (q *quiet) dropped(now time.Time, r *received, why drop) {
	if last, ok := q.logged[r.peer]; ok && now.Sub(last) < quietTime {
		return
	}
	if q.logged == nil || len(q.logged) >= quietSources {
		q.logged = map[netip.Addr]time.Time{}
	}
	q.logged[r.peer] = now
	q.log.Debug("dropped a BFD packet", "source", r.peer, "destination", r.local, "device", r.device, "multihop", r.multihop, "ttl", r.ttl, "reason", string(why))
}

// hint says what the operator of a session can do about packets that are dropped although they come from its peer; "" if nothing.
func hint(r *received, why drop, x *session) string {
	switch why {
	case dropTTL:
		if x.key.multihop {
			return fmt.Sprintf("packets of %s arrive with a TTL of %d, and the least that is accepted is %d: lower minimumTtl, or find out why the way is so long",
				r.peer, r.ttl, x.config.MinimumTTL)
		}
		return fmt.Sprintf("packets of %s arrive with a TTL of %d instead of 255: a peer that is not on this network needs a multihop session on both sides", r.peer, r.ttl)
	case dropAuthentication:
		return fmt.Sprintf("%s authenticates its packets: turn that off there, it is not supported", r.peer)
	case dropVersion:
		return fmt.Sprintf("%s speaks another version of BFD", r.peer)
	}
	return ""
}

// logChange logs what somebody on call wants to know.
func (s *Speaker) logChange(old, t Status) {
	log := s.log.With("peer", t.Peer, "multihop", t.Multihop)
	if t.Device != "" {
		log = log.With("device", t.Device)
	}
	switch {
	case t.State == Up && old.State != Up:
		log.Info("BFD session is up", "local", t.Source, "detectionTime", t.DetectionTime)
	case t.State != Up && old.State == Up && t.Failed:
		log.Warn("BFD session has failed", "reason", t.Diagnostic.String(), "peerSays", t.RemoteState.String(), "peersReason", t.RemoteDiagnostic.String(), "detectionTime", old.DetectionTime)
	case t.State != Up && old.State == Up:
		log.Info("the peer has taken the BFD session down on purpose")
	}
	if t.LastError != old.LastError && t.LastError != "" {
		log.Warn("BFD session is in trouble", "error", t.LastError)
	}
}
