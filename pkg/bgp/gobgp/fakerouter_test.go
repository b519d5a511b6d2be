package gobgp

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// fakeRouter says what a test wants it to; what it is told, it reads with GoBGP's parser.
type fakeRouter struct {
	*net.TCPListener
	t *testing.T
}

func newFakeRouter(t *testing.T) *fakeRouter {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &fakeRouter{TCPListener: l.(*net.TCPListener), t: t}
}

func (r *fakeRouter) peer(name string) bgp.Peer {
	return bgp.Peer{
		Name: name, Address: netip.MustParseAddr("127.0.0.1"), Port: r.Addr().(*net.TCPAddr).AddrPort().Port(), LocalASN: 65001, PeerASN: 64512,
		HoldTime: 90 * time.Second, ConnectTime: time.Second, IPv4: true, IPv6: true, NextHop6: netip.MustParseAddr("2001:db8::1"),
	}
}

// conversation is a connection of the node's to the router.
type conversation struct {
	net.Conn
	t *testing.T
}

func (r *fakeRouter) accept() *conversation {
	r.t.Helper()
	_ = r.SetDeadline(time.Now().Add(10 * time.Second))
	conn, err := r.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &conversation{Conn: conn, t: r.t}
}

func (c *conversation) say(m []byte) {
	c.t.Helper()
	if _, err := c.Write(m); err != nil {
		c.t.Fatal(err)
	}
}

// hear returns the next message that is no KEEPALIVE.
func (c *conversation) hear() *packet.BGPMessage {
	c.t.Helper()
	for {
		m, err := readMessage(c)
		if err != nil {
			c.t.Fatal(err)
		}
		parsed, err := packet.ParseBGPMessage(m)
		if err != nil {
			c.t.Fatal(err)
		}
		if parsed.Header.Type != packet.BGP_MSG_KEEPALIVE {
			return parsed
		}
	}
}

var capable = []packet.ParameterCapabilityInterface{
	packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapMultiProtocol(packet.RF_IPv6_UC), packet.NewCapFourOctetASNumber(64512),
}

// greet brings a session up and returns the node's OPEN message.
func (c *conversation) greet() *packet.BGPOpen {
	c.t.Helper()
	open := c.hear().Body.(*packet.BGPOpen)
	c.say(openMessage(c.t, 64512, 90, capable...))
	c.say(newMessage(packet.BGP_MSG_KEEPALIVE))
	return open
}

// prefixes returns the IPv4 prefixes of the next UPDATE, withdrawn ones with a minus.
func (c *conversation) prefixes() []string {
	c.t.Helper()
	u, ok := c.hear().Body.(*packet.BGPUpdate)
	if !ok {
		c.t.Fatal("no UPDATE")
	}
	var list []string
	for _, n := range u.WithdrawnRoutes {
		list = append(list, "-"+n.NLRI.String())
	}
	for _, n := range u.NLRI {
		list = append(list, n.NLRI.String())
	}
	slices.Sort(list)
	return list
}

type node struct {
	*Server
	t   *testing.T
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newNode(t *testing.T) *node {
	log := &lockedBuffer{}
	n := &node{Server: New(slog.New(slog.NewTextHandler(log, nil))), t: t, log: log}
	t.Cleanup(n.Stop)
	return n
}

func (n *node) apply(c bgp.Change) {
	n.t.Helper()
	if !c.RouterID.IsValid() {
		c.RouterID = netip.MustParseAddr("192.0.2.11")
	}
	if err := n.Apply(c); err != nil {
		n.t.Fatal(err)
	}
}

// until waits until a peer's session is as it should be.
func (n *node) until(peer string, is func(bgp.Session) bool) bgp.Session {
	n.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		var last bgp.Session
		for _, s := range n.Sessions() {
			if s.Peer == peer {
				last = s
			}
		}
		if is(last) {
			return last
		}
		select {
		case <-n.Changed():
		case <-time.After(20 * time.Millisecond): // counters change without a word
		case <-deadline:
			n.t.Fatalf("the session never was as it should be: %+v\n%s", last, n.log)
		}
	}
}

func up(s bgp.Session) bool { return s.State == bgp.Established }

func to(peer, prefix string, a bgp.Attributes) bgp.Route {
	return bgp.Route{Prefix: netip.MustParsePrefix(prefix), Paths: []bgp.Path{{Peers: []string{peer}, Attributes: &a}}}
}
