package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// review finds out what the API server has of this node, and queues what differs.
func (s *statuses) review(ctx context.Context) error {
	found := map[statusKey]string{}
	announcements := map[statusKey]v1beta1.ServiceAnnouncementStatus{} // for adoption
	sessions := map[string]v1beta1.BGPSessionStatus{}
	selector := nodeLabel + "=" + nodeLabelValue(s.node)
	err := s.api.eachStatus(ctx, announcementsResource, selector, func(key statusKey, raw []byte) error {
		var status v1beta1.ServiceAnnouncementStatus
		var ours bool
		if found[key], ours = decode(raw, &status); ours && !s.adopted {
			announcements[key] = status
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.api.eachStatus(ctx, sessionsResource, selector, func(key statusKey, raw []byte) error {
		var status v1beta1.BGPSessionStatus
		var ours bool
		if found[key], ours = decode(raw, &status); ours {
			sessions[status.Peer] = status
		}
		return nil
	})
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.reviewAt = now.Add(statusReview)
	for key, has := range found {
		if s.items[key] == nil {
			s.items[key] = &statusItem{has: has}
		}
	}
	if !s.adopted {
		s.adopted = true
		for peer, status := range sessions {
			s.published[peer] = status
			s.up[peer] = sessionUp{up: status.State == string(bgp.Established)}
		}
		for key, status := range announcements {
			if !s.active {
				s.items[key].inherit(status)
			}
		}
	}
	if s.told {
		s.lookAtSessions(now)
	}
	for key, it := range s.items {
		if it.has = found[key]; it.has != it.wanted(s.node) {
			s.enqueue(key, time.Time{})
		} else {
			s.forgetIfGone(key, it)
		}
	}
	return nil
}

// inherit takes over what an earlier run wrote and this one has not told anything of.
func (it *statusItem) inherit(status v1beta1.ServiceAnnouncementStatus) {
	it.service = status.Service
	if it.layer2.text == "" {
		it.layer2 = statusPart{encodePart(status.Layer2), true}
	}
	if it.bgp.text == "" {
		it.bgp = statusPart{encodePart(status.BGP), true}
	}
}

// decode returns a status as encode writes it. One that this program can't have written is like no other, so that it is replaced or deleted.
func decode(raw []byte, into any) (text string, ours bool) {
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Sprintf("%v: %s", err, raw), false
	}
	return encode(into), true
}
