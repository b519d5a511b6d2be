package unnumbered

import (
	"net/netip"
	"time"
)

const (
	// unknownLifetime is how long a router counts that does not say how long it does: those that only want to be found send a lifetime
	// of 0. No router is silent for longer (MaxRtrAdvInterval, RFC 4861, section 6.2.1).
	unknownLifetime = 30 * time.Minute
	// answerTime is how long a router may take to answer a solicitation: MIN_DELAY_BETWEEN_RAS and MAX_RA_DELAY_TIME (RFC 4861, section
	// 10), and some more.
	answerTime = 5 * time.Second
	// rivalPause is the time between two solicitations where there are two routers.
	rivalPause = 30 * time.Second
)

// hearing is what was heard from routers on one interface.
type hearing struct {
	router         netip.Addr
	heard, expires time.Time
	// rival is another router, or the same with another address. It is taken once it has shown that router answers no more.
	rival      netip.Addr
	rivalSince time.Time
}

// advertisement notes that a router was heard, and says whether to solicit an answer from all that there are.
func (h *hearing) advertisement(now time.Time, from netip.Addr, lifetime time.Duration) (solicit bool) {
	if lifetime == 0 {
		lifetime = unknownLifetime
	}
	if h.router.IsValid() && h.router != from {
		since, answered := now.Sub(h.rivalSince), h.heard.After(h.rivalSince)
		if h.rival != from || answered && since >= rivalPause {
			h.rival, h.rivalSince = from, now
			return true
		}
		if answered || since < answerTime {
			return false
		}
	}
	*h = hearing{router: from, heard: now, expires: now.Add(lifetime), rival: h.rival, rivalSince: h.rivalSince}
	if h.rival == from {
		h.rival = netip.Addr{}
	}
	return false
}

// at returns the router that counts at a time, invalid if there is none.
func (h *hearing) at(now time.Time) netip.Addr {
	if h.router.IsValid() && !now.Before(h.expires) {
		*h = hearing{}
	}
	return h.router
}
