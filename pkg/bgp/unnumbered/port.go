package unnumbered

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

var allNodes, allRouters = netip.MustParseAddr("ff02::1"), netip.MustParseAddr("ff02::2")

const (
	// The first advertisements come faster than RFC 4861 has it, which thinks of hosts that are patient; FRR does the same.
	firstCount, firstPause = 4, time.Second
	// pause is the time between later ones, of which each differs by up to pauseJitter, so that routers do not fall in step.
	pause, pauseJitter = 10 * time.Second, 2 * time.Second
	// answerPause is the least time between answers to solicitations.
	answerPause = time.Second
	// answerDelay is the most that an answer is put off (MAX_RA_DELAY_TIME, RFC 4861, section 10).
	answerDelay = 500 * time.Millisecond
)

// port is an interface on which advertisements are sent and heard.
type port struct {
	name  string
	index int
	local netip.Addr // with zone
	conn  *ndp.Conn
	hear  hearing

	sent     int
	lastSent time.Time
	next     time.Time // when to send
}

// message is what a port heard, or why it hears no more.
type message struct {
	port *port
	from netip.Addr
	ndp  ndp.Message
	err  error
}

// open begins to hear; messages are read until the port is closed or ctx is done.
func open(ctx context.Context, ifi *net.Interface, messages chan<- message) (*port, error) {
	// As a zone, the name would be looked up in a cache of package net, which for up to a minute has the index of an interface that had
	// the name before.
	numbered := *ifi
	numbered.Name = strconv.Itoa(ifi.Index)
	conn, local, err := ndp.Listen(&numbered, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("it has no usable IPv6 link-local address: switch IPv6 on there: %w", err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	if err := errors.Join(conn.SetICMPFilter(&filter), conn.SetControlMessage(ipv6.FlagHopLimit, true), conn.JoinGroup(allRouters)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen to routers on it: %w", err)
	}
	p := &port{name: ifi.Name, index: ifi.Index, local: local.WithZone(ifi.Name), conn: conn}
	go p.read(ctx, messages)
	return p, nil
}

func (p *port) read(ctx context.Context, messages chan<- message) {
	tell := func(m message) {
		m.port = p
		select {
		case messages <- m:
		case <-ctx.Done():
		}
	}
	b := make([]byte, 9216)
	for {
		n, control, from, err := p.conn.ReadRaw(b)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				tell(message{err: err})
			}
			return
		}
		from = from.WithZone(p.name)
		// A lower hop limit means that the message came through a router, from off the link (RFC 4861, section 6.1).
		if control == nil || control.HopLimit != ndp.HopLimit || from == p.local {
			continue
		}
		if m, err := ndp.ParseMessage(b[:n]); err == nil {
			tell(message{from: from, ndp: m})
		}
	}
}

// heard notes a message.
func (p *port) heard(now time.Time, m message) {
	switch body := m.ndp.(type) {
	case *ndp.RouterAdvertisement:
		if m.from.IsLinkLocalUnicast() && p.hear.advertisement(now, m.from, body.RouterLifetime) {
			p.solicit()
		}
	case *ndp.RouterSolicitation:
		at := now.Add(rand.N(answerDelay))
		if earliest := p.lastSent.Add(answerPause); at.Before(earliest) {
			at = earliest
		}
		if at.Before(p.next) {
			p.next = at
		}
	}
}

// advertise sends an advertisement if one is due. It says that the node is a neighbour, and no default router for anyone. After an error
// it is tried again soon: a link that has just come up does not take packets yet.
func (p *port) advertise(now time.Time, mac net.HardwareAddr) error {
	if now.Before(p.next) {
		return nil
	}
	m := &ndp.RouterAdvertisement{}
	if len(mac) == 6 {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}}
	}
	p.lastSent, p.next = now, now.Add(firstPause)
	if err := p.conn.WriteTo(m, nil, allNodes); err != nil {
		return err
	}
	p.sent++
	if p.sent <= firstCount && !p.hear.router.IsValid() {
		p.solicit()
	}
	if p.sent >= firstCount {
		p.next = now.Add(pause - pauseJitter + rand.N(2*pauseJitter))
	}
	return nil
}

// solicit asks routers to advertise themselves. If it is lost, they do so anyway, only later.
func (p *port) solicit() {
	_ = p.conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters)
}
