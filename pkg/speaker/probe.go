package speaker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/layer2"
)

// probesAtOnce bounds the probes under way: thousands of fresh addresses at once are not to flood the network.
const probesAtOnce = 512

// probeOrder asks whether a stranger has the address that `hold` is to answer for.
type probeOrder struct {
	addr       netip.Addr
	interfaces []string
	hold       *hold
}

type probeResult struct {
	probeOrder
	conflict *layer2.Conflict
	err      error
}

// probes runs probes beside the loop.
type probes struct {
	layer2 Layer2
	ours   func(net.HardwareAddr) bool
	wake   func()
	ctx    context.Context // ends with the loop
	slots  chan struct{}

	mu      sync.Mutex
	results []probeResult
}

func newProbes(l Layer2, ours func(net.HardwareAddr) bool, wake func()) *probes {
	return &probes{layer2: l, ours: ours, wake: wake, slots: make(chan struct{}, probesAtOnce)}
}

func (p *probes) start(o probeOrder) {
	go func() {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-p.ctx.Done():
			return
		}
		conflict, err := p.layer2.Probe(p.ctx, o.addr, o.interfaces, p.ours)
		p.mu.Lock()
		p.results = append(p.results, probeResult{o, conflict, err})
		p.mu.Unlock()
		p.wake()
	}()
}

func (p *probes) take() []probeResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	results := p.results
	p.results = nil
	return results
}

// takeProbes takes in the results of probes that are still of interest.
func (s *Speaker) takeProbes(now time.Time) {
	for _, r := range s.probes.take() {
		h := r.hold
		h.probing = false
		if s.held[r.addr] != h || s.replica.get(r.addr) != h.claim || !h.claim.Probing {
			continue
		}
		s.touchAddr(r.addr)
		switch {
		case r.err != nil:
			h.retry = now.Add(time.Second)
			s.log.Warn("fresh address not probed yet, trying again", "address", r.addr, "error", r.err)
		case r.conflict != nil && (h.conflict == nil && !h.suspected || s.macs.known(r.conflict.MAC)):
			// Perhaps a speaker that probed the same address before it heard that this one does, and whose MAC address was not known.
			h.suspected, h.retry = true, now.Add(suspicion)
		case r.conflict != nil:
			h.retry = now.Add(reprobe)
			if h.conflict == nil || !slices.Equal(h.conflict.MAC, r.conflict.MAC) {
				s.log.Warn("another host has the address: not announced", "address", r.addr, "mac", r.conflict.MAC.String(), "interface", r.conflict.Interface)
			}
			h.conflict = r.conflict
		default:
			h.conflict = nil
			s.claim(h, h.claim, false)
			s.announceAnew(h, now)
			s.tell("announcing", r.addr, announce.Probed, "")
			continue
		}
		s.at(r.addr, h.retry)
	}
}

// complain tells users which addresses of the group's Services strangers have, or that strangers have none any more.
func (s *Speaker) complain(b *ballot) {
	for _, svc := range b.services {
		message := s.complaint(svc)
		switch {
		case message == svc.Complaint:
		case message == "" && svc.ComplaintReason != announce.AddressConflict: // see lament
		case message == "":
			s.config.Reporter.Withdraw(svc.Name)
		default:
			s.config.Reporter.Complain(svc.Name, announce.AddressConflict, message, false)
		}
	}
}

func (s *Speaker) complaint(svc *service) string {
	var messages []string
	for _, a := range svc.addrs {
		h := s.held[a]
		if h != nil && h.claim.Probing && h.conflict == nil {
			return svc.Complaint // it may be about this address; the probe will tell
		}
		if h != nil && h.conflict != nil {
			messages = append(messages, fmt.Sprintf("%v is not announced: the host with the MAC address %v answers for it. "+
				"Take the address from that host, or out of the pool. It is tried again every %v.", a, h.conflict.MAC, reprobe))
		}
	}
	return strings.Join(messages, " ")
}

// contested reports a stranger that claims an address which this node announces.
func (s *Speaker) contested(c layer2.Conflict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[c.Addr] == nil {
		return
	}
	for _, svc := range s.byAddr[c.Addr] {
		s.config.Reporter.Warn(svc.Name, announce.AddressConflict, fmt.Sprintf("the host with the MAC address %v claims %v, which node %s announces. "+
			"Take the address from that host, or out of the pool.", c.MAC, c.Addr, s.config.Node))
	}
}
