package gobgp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

func TestSession(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	p := r.peer("router")
	p.RestartTime = 2 * time.Minute
	n.apply(bgp.Change{Peers: []bgp.Peer{p}, Routes: []bgp.Route{to("router", "203.0.113.1/32", bgp.Attributes{}), to("other", "203.0.113.2/32", bgp.Attributes{})}})
	c := r.accept()
	open := c.greet()
	if open.ID != netip.MustParseAddr("192.0.2.11") || open.HoldTime != 90 || open.MyAS != 65001 {
		t.Errorf("its OPEN message: %+v", open)
	}
	if got := fmt.Sprint(c.prefixes()); got != "[203.0.113.1/32]" {
		t.Errorf("it announces %s", got)
	}
	s := n.until("router", up)
	if s.Announced != 1 || s.PeerASN != 64512 || s.Local != netip.MustParseAddr("127.0.0.1") || s.LastError != "" {
		t.Errorf("the session: %+v", s)
	}

	t.Run("whatever the router announces", func(t *testing.T) {
		garbage := newMessage(packet.BGP_MSG_UPDATE, 0, 0, 0, 9, 0x40, 2, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		for range 1000 {
			c.say(garbage)
			c.say(reach(t, "fe80::1", 1, "10.0.0.1/32"))
		}
		n.until("router", func(s bgp.Session) bool { return s.Counters.UpdatesReceived == 2000 })
		// GoBGP would send a NOTIFICATION for the garbage before this.
		n.apply(bgp.Change{GoneRoutes: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}})
		if got := fmt.Sprint(c.prefixes()); got != "[-203.0.113.1/32]" {
			t.Errorf("it says %s", got)
		}
		err := n.engine.ListPeer(t.Context(), &api.ListPeerRequest{}, func(p *api.Peer) {
			for _, family := range p.AfiSafis {
				if family.State.Received != 0 {
					t.Errorf("GoBGP has %d routes of the router's", family.State.Received)
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		n.Reset("router", "BFD: no packets for 300 ms")
		m := c.hear().Body.(*packet.BGPNotification)
		if m.ErrorCode != packet.BGP_ERROR_CEASE || m.ErrorSubcode != ceaseReset || !strings.Contains(string(m.Data), "BFD") {
			t.Errorf("it says %+v", m)
		}
		n.Reset("router", "again")
		n.Reset("nobody", "again")
		c = r.accept()
		c.greet()
		s := n.until("router", up)
		if s.LastError != "BFD: no packets for 300 ms" {
			t.Errorf("the last error: %q", s.LastError)
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		c.say(slices.Repeat([]byte{0xff}, 16))
		c.say([]byte{0, 3, 2}) // a message of 3 bytes
		m := c.hear().Body.(*packet.BGPNotification)
		if m.ErrorCode != packet.BGP_ERROR_MESSAGE_HEADER_ERROR {
			t.Errorf("it says %+v", m)
		}
		n.until("router", func(s bgp.Session) bool {
			return strings.Contains(s.LastError, "this node sent NOTIFICATION 1/2 (bad message length)")
		})
		c = r.accept()
		c.greet()
		n.until("router", up)
	})
	t.Run("stop", func(t *testing.T) {
		n.Stop()
		if m, err := readAfterKeepalives(c); err == nil {
			t.Errorf("with graceful restart it said %x", m)
		}
		n.Stop()
		if err := n.Apply(bgp.Change{RouterID: netip.MustParseAddr("192.0.2.11")}); err == nil {
			t.Error("a stopped engine takes orders")
		}
	})
	for line := range strings.Lines(n.log.String()) {
		if !strings.Contains(line, "malformed BGP Header") || !strings.Contains(line, "peer=router") {
			t.Errorf("it logged: %s", line)
		}
	}
}

func readAfterKeepalives(c *conversation) ([]byte, error) {
	for {
		m, err := readMessage(c)
		if err != nil || m[typeOffset] != packet.BGP_MSG_KEEPALIVE {
			return m, err
		}
	}
}

func TestStopWithoutGracefulRestart(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	n.apply(bgp.Change{Peers: []bgp.Peer{r.peer("router")}})
	c := r.accept()
	c.greet()
	n.until("router", up)
	n.Stop()
	if m, ok := c.hear().Body.(*packet.BGPNotification); !ok || m.ErrorCode != packet.BGP_ERROR_CEASE || m.ErrorSubcode != ceaseShutdown {
		t.Errorf("it says %+v", m)
	}
}

// TestLastOrder checks that a router that keeps routes while the node is away does not keep what was withdrawn last.
func TestLastOrder(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	p := r.peer("router")
	p.RestartTime = 2 * time.Minute
	n.apply(bgp.Change{Peers: []bgp.Peer{p}, Routes: []bgp.Route{to("router", "203.0.113.1/32", bgp.Attributes{})}})
	c := r.accept()
	c.greet()
	n.until("router", up)
	if got := fmt.Sprint(c.prefixes()); got != "[203.0.113.1/32]" {
		t.Errorf("it announces %s", got)
	}
	n.apply(bgp.Change{GoneRoutes: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}})
	n.Stop()
	if got := fmt.Sprint(c.prefixes()); got != "[-203.0.113.1/32]" {
		t.Errorf("it says %s", got)
	}
	if m, err := readAfterKeepalives(c); err == nil {
		t.Errorf("with graceful restart it said %x", m)
	}
}

// TestHungRouter has a router that neither reads nor writes, while so much is to be sent to it that not even a NOTIFICATION gets through.
func TestHungRouter(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	p := r.peer("router")
	p.HoldTime, p.KeepaliveTime = 3*time.Second, time.Second
	n.apply(bgp.Change{Peers: []bgp.Peer{p}})
	c := r.accept()
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	c.greet()
	n.until("router", up)
	s := n.session("router")
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	stuck := make(chan error)
	go func() {
		m := newMessage(packet.BGP_MSG_UPDATE)
		stuck <- l.send(append(m, make([]byte, 64<<20)...)) // more than the kernel takes
	}()
	if err := <-stuck; err == nil {
		t.Error("the kernel took everything")
	}
	n.until("router", func(s bgp.Session) bool { return strings.Contains(s.LastError, "hold time") })
	r.accept().greet()
	n.until("router", up)
}

// TestSource checks that a router which is to see another address of the node forgets the routes of the first.
func TestSource(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	p := r.peer("router")
	p.RestartTime, p.Source = 2*time.Minute, netip.MustParseAddr("127.0.0.2")
	n.apply(bgp.Change{Peers: []bgp.Peer{p}})
	c := r.accept()
	c.greet()
	n.until("router", up)
	p.Source = netip.MustParseAddr("127.0.0.3")
	n.apply(bgp.Change{Peers: []bgp.Peer{p}})
	if m, ok := c.hear().Body.(*packet.BGPNotification); !ok || m.ErrorSubcode != ceaseConfiguration {
		t.Errorf("it says %+v", m)
	}
	if c := r.accept(); remoteAddress(c.Conn) != p.Source {
		t.Errorf("it comes from %v", remoteAddress(c.Conn))
	}
}

// TestKeepAlive checks that the kernel watches a connection without a hold time.
func TestKeepAlive(t *testing.T) {
	r := newFakeRouter(t)
	for hold, want := range map[time.Duration]int{0: 1, 90 * time.Second: 0} {
		p := r.peer("router")
		p.HoldTime = hold
		conn, err := dial(t.Context(), &p)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		err = control(raw, func(fd int) (err error) {
			got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			return err
		})
		if err != nil || got != want {
			t.Errorf("with a hold time of %v: SO_KEEPALIVE is %d, %v", hold, got, err)
		}
	}
}

func TestRouterID(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	n.apply(bgp.Change{Peers: []bgp.Peer{r.peer("router")}})
	c := r.accept()
	c.greet()
	n.until("router", up)
	n.apply(bgp.Change{RouterID: netip.MustParseAddr("192.0.2.12")})
	if m := c.hear().Body.(*packet.BGPNotification); m.ErrorSubcode != ceaseConfiguration {
		t.Errorf("it says %+v", m)
	}
	if open := r.accept().greet(); open.ID != netip.MustParseAddr("192.0.2.12") {
		t.Errorf("its router ID is %v", open.ID)
	}
}

// TestGarbage has routers that say anything at all, and go.
func TestGarbage(t *testing.T) {
	for name, words := range map[string][][]byte{
		"nothing":               {},
		"no BGP":                {[]byte("GET / HTTP/1.1\r\n\r\n")},
		"zeros":                 {make([]byte, 100)},
		"half a header":         {newMessage(packet.BGP_MSG_OPEN)[:10]},
		"half an OPEN":          {openMessage(t, 64512, 90, capable...)[:25]},
		"an empty OPEN":         {newMessage(packet.BGP_MSG_OPEN)},
		"an OPEN of zeros":      {newMessage(packet.BGP_MSG_OPEN, make([]byte, 10)...)},
		"a KEEPALIVE first":     {newMessage(packet.BGP_MSG_KEEPALIVE)},
		"two OPENs":             {openMessage(t, 64512, 90, capable...), openMessage(t, 64512, 90, capable...)},
		"an unknown type":       {openMessage(t, 64512, 90, capable...), newMessage(99)},
		"a wrong length, later": {openMessage(t, 64512, 90, capable...), newMessage(packet.BGP_MSG_KEEPALIVE), bytes.Repeat([]byte{0xff}, 16), {0, 1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			r, well, n := newFakeRouter(t), newFakeRouter(t), newNode(t)
			n.apply(bgp.Change{Peers: []bgp.Peer{r.peer("bad"), well.peer("good")}})
			c := r.accept()
			good := well.accept()
			good.greet()
			n.until("good", up)
			for _, m := range words {
				_, _ = c.Write(m)
			}
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_ = c.SetDeadline(time.Now().Add(3 * time.Second))
			for {
				if _, err := readMessage(c); err != nil {
					break
				}
			}
			c.Close()
			s := n.until("bad", func(s bgp.Session) bool { return s.LastError != "" })
			t.Log(s.LastError)
			c = r.accept()
			c.greet()
			n.until("bad", up)
			if s := n.until("good", up); s.Counters.OpensSent != 1 {
				t.Errorf("the other session: %+v", s)
			}
		})
	}
}

// TestPolicy checks that GoBGP is not left with policy for routes that are gone.
func TestPolicy(t *testing.T) {
	r, n := newFakeRouter(t), newNode(t)
	n.apply(bgp.Change{Peers: []bgp.Peer{r.peer("router")}})
	c := r.accept()
	c.greet()
	n.until("router", up)
	statements := func() (count int) {
		err := n.engine.ListStatement(context.Background(), &api.ListStatementRequest{}, func(*api.Statement) { count++ })
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	before := statements()
	prefix := netip.MustParsePrefix("203.0.113.1/32")
	for i := range uint32(100) {
		n.apply(bgp.Change{Routes: []bgp.Route{to("router", prefix.String(), bgp.Attributes{MED: i, HasMED: true})}})
		if got := fmt.Sprint(c.prefixes()); got != "[203.0.113.1/32]" {
			t.Fatalf("it says %s", got)
		}
	}
	if got := statements(); got != before+1 {
		t.Errorf("GoBGP has %d statements, before any route %d", got, before)
	}
	n.apply(bgp.Change{GoneRoutes: []netip.Prefix{prefix}, GonePeers: []string{"router"}})
	if got := statements(); got != 0 {
		t.Errorf("GoBGP has %d statements without routes and peers", got)
	}
	if len(n.table.variants)+len(n.table.routes)+len(n.table.policy.hops) != 0 {
		t.Errorf("left: %v %v %v", n.table.variants, n.table.routes, n.table.policy.hops)
	}
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newHandler(slog.New(slog.NewTextHandler(&out, nil)), func(a string) string { return map[string]string{"127.1.0.0": "rack-1"}[a] }))
	log.Info("Peer Up", slog.String("Key", "127.1.0.0"))
	log.With(slog.String("Topic", "Peer"), slog.String("Key", "127.1.0.0")).Warn(acceptedTooEarly)
	if out.Len() != 0 {
		t.Errorf("logged: %s", &out)
	}
	log.With(slog.String("Topic", "Peer"), slog.String("Key", "127.1.0.0")).Warn("hold timer expired", slog.String("State", "ESTABLISHED"))
	if got := out.String(); !strings.Contains(got, `msg="GoBGP: hold timer expired"`) || !strings.Contains(got, "peer=rack-1") || strings.Contains(got, "127.1") {
		t.Errorf("logged: %s", got)
	}
}
