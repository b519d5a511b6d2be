package bfd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// fakeLAN carries packets between Speakers in 1 ms, and loses some.
type fakeLAN struct {
	mu    sync.Mutex
	loss  float64 // part of the packets that get lost
	cut   bool
	owner map[netip.Addr]*fakeHost
}

// fakeHost is a machine with addresses and a Speaker.
type fakeHost struct {
	*Speaker
	lan  *fakeLAN
	addr netip.Addr // what packets are sent from unless the session says otherwise
	// late: what comes is not put in the inbox but left for drain, as when the process is not running.
	late    bool
	pending []received

	mu      sync.Mutex
	news    []Status
	refused map[endpoint]error
	sending error
}

func (l *fakeLAN) host(t *testing.T, addrs ...netip.Addr) *fakeHost {
	h := &fakeHost{lan: l, addr: addrs[0]}
	h.Speaker = New(Config{Log: logTo(t), Changed: func(s Status) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.news = append(h.news, s)
	}})
	h.network = h
	if l.owner == nil {
		l.owner = map[netip.Addr]*fakeHost{}
	}
	for _, a := range addrs {
		l.owner[a] = h
	}
	return h
}

// start runs the Speaker until stop is called.
func (h *fakeHost) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (h *fakeHost) listen(wanted map[endpoint]bool) map[endpoint]error {
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := map[endpoint]error{}
	for e := range wanted {
		if err := h.refused[e]; err != nil {
			failed[e] = err
		}
	}
	return failed
}

func (h *fakeHost) open(s Session, local netip.Addr, port uint16) (path, error) {
	if !local.IsValid() {
		local = h.addr
	}
	return &fakePath{h, s, netip.AddrPortFrom(local, port)}, nil
}

func (h *fakeHost) drain(handle func(*received)) {
	h.lan.mu.Lock()
	pending := h.pending
	h.pending = nil
	h.lan.mu.Unlock()
	for _, r := range pending {
		handle(&r)
	}
}

func (h *fakeHost) close() {}

type fakePath struct {
	host    *fakeHost
	session Session
	local   netip.AddrPort
}

func (p *fakePath) source() netip.AddrPort { return p.local }
func (p *fakePath) close()                 {}

func (p *fakePath) send(b []byte) error {
	p.host.mu.Lock()
	err := p.host.sending
	p.host.mu.Unlock()
	l := p.host.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.owner[p.session.Peer]
	if err != nil || to == nil || l.cut || rand.Float64() < l.loss {
		return err
	}
	b = bytes.Clone(b)
	time.AfterFunc(ms, func() {
		r := arrived(endpoint{multihop: p.session.Multihop}, p.local.Addr(), p.session.Peer, 255, b)
		l.mu.Lock()
		late := to.late
		if late {
			to.pending = append(to.pending, r)
		}
		l.mu.Unlock()
		if !late {
			to.inbox <- r
		}
	})
	return nil
}

func (l *fakeLAN) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (h *fakeHost) downs() (n uint64) {
	for _, s := range h.Statuses() {
		n += s.Downs
	}
	return n
}

// count returns how many sessions are in a state.
func (h *fakeHost) count(state State) (n int) {
	for _, s := range h.Statuses() {
		if s.State == state {
			n++
		}
	}
	return n
}
