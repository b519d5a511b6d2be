package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp/place"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

func TestPasswordsFromSecrets(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) { p := tor(); p.PasswordSecret = "tor"; c.BGPPeers = []*config.BGPPeer{p} })
		o.serve("default/web", "10.0.0.1", "node-b")
		close(o.synced)
		o.expect(t, "without the Secret")
		if s := o.report.session("tor"); s.State != refusedState || s.Reason != string(NoPassword) || !strings.Contains(s.LastError, "tor") {
			t.Errorf("reported as %+v", s)
		}
		o.setPassword("", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Data: map[string][]byte{"password": []byte("hidden")}})
		o.expect(t, "with the Secret", "10.0.0.1/32")
		if p := o.engine.last().Peers; len(p) != 1 || p[0].Password != "hidden" {
			t.Error("the engine does not have the password")
		}
	})
}

func TestPeersAreFound(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			c.BGPPeers = []*config.BGPPeer{
				{Name: "annotated", Annotation: "example.com/tor", Port: 179, LocalASN: 64500, PeerASN: 64512},
				{Name: "gateway", Gateway: "IPv6", Port: 179, LocalASN: 64500, PeerASN: 64512},
				{Name: "unnumbered", Interface: "eth7", Port: 179, LocalASN: 64500, PeerASN: 64512},
			}
		})
		close(o.synced)
		addresses := func() map[string]string {
			synctest.Wait()
			all := map[string]string{}
			for _, p := range o.engine.last().Peers {
				all[p.Name] = p.Address.String()
			}
			return all
		}
		if got := addresses(); len(got) != 0 {
			t.Errorf("sessions with %v, which are not known", got)
		}
		for _, nowhere := range []string{"tor", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "fe80::1", "::ffff:0.0.0.0"} {
			o.SetNode(Node{Name: "node-a", Annotations: map[string]string{"example.com/tor": nowhere}})
			if got := addresses(); len(got) != 0 {
				t.Errorf("sessions with %v, annotated with %s", got, nowhere)
			}
			if s := o.report.session("annotated"); s.Reason != string(announce.NoPeerAddress) {
				t.Errorf("annotated with %s: %+v", nowhere, s)
			}
		}
		o.SetNode(Node{Name: "node-a", Annotations: map[string]string{"example.com/tor": "::ffff:192.0.2.5"}})
		if got := addresses(); !maps.Equal(got, map[string]string{"annotated": "192.0.2.5"}) {
			t.Errorf("sessions with %v", got)
		}
		o.network.set(func(n *fakeNetwork) {
			n.gateway6 = netip.MustParseAddr("fe80::1%eth0")
			n.neighbours = map[string]netip.Addr{"eth7": netip.MustParseAddr("fe80::7%eth7")}
		})
		if got := addresses(); !maps.Equal(got, map[string]string{"annotated": "192.0.2.5", "gateway": "fe80::1%eth0", "unnumbered": "fe80::7%eth7"}) {
			t.Errorf("sessions with %v", got)
		}
		if p := o.engine.last().Peers; !p[2].IPv4 || !p[2].IPv6 || p[1].IPv4 {
			t.Errorf("families: %+v", p)
		}
	})
}

// TestNetworkThatIsGoneForAMoment: sessions stay as they are while the kernel knows no way to their peers.
func TestNetworkThatIsGoneForAMoment(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		profile := &config.BFDProfile{Name: "quick", Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 3}
		o.reconfigure(func(c *config.Config) {
			near, far := tor(), tor()
			near.Name, near.Address, near.Gateway, near.BFD = "near", netip.Addr{}, "IPv4", profile
			far.Name, far.Address, far.PeerASN, far.DualStack, far.BFD = "far", netip.MustParseAddr("203.0.113.1"), far.LocalASN, true, profile
			c.BGPPeers = []*config.BGPPeer{far, near}
		})
		here := place.Place{Interface: "eth0", NextHop4: netip.MustParseAddr("192.0.2.11"), NextHop6: netip.MustParseAddr("2001:db8::11")}
		there := here
		there.Routed = true
		up := func(n *fakeNetwork) {
			n.gateway4 = netip.MustParseAddr("192.0.2.1")
			n.places = map[netip.Addr]place.Place{n.gateway4: here, netip.MustParseAddr("203.0.113.1"): there}
		}
		o.network.set(up)
		close(o.synced)
		time.Sleep(watchPatience)
		synctest.Wait()
		before, watched := o.engine.last(), o.bfd.last()
		if len(before.Peers) != 2 || before.Peers[0].NextHop6 != here.NextHop6 || len(watched) != 2 || !watched[0].Multihop || watched[1].Multihop {
			t.Fatalf("peers %+v, BFD %+v", before.Peers, watched)
		}
		for what, change := range map[string]func(*fakeNetwork){
			"the interface is down": func(n *fakeNetwork) { n.gateway4, n.places = netip.Addr{}, nil },
			"there is a way around": func(n *fakeNetwork) {
				n.gateway4, n.places = netip.Addr{}, map[netip.Addr]place.Place{netip.MustParseAddr("192.0.2.1"): there}
			},
			"it is back": up,
		} {
			o.network.set(change)
			synctest.Wait()
			if is := o.engine.last(); !slices.Equal(is.Peers, before.Peers) {
				t.Errorf("%s: peers %+v, want %+v", what, is.Peers, before.Peers)
			}
			if is := o.bfd.last(); !slices.Equal(is, watched) {
				t.Errorf("%s: BFD %+v, want %+v", what, is, watched)
			}
		}
		o.network.set(func(n *fakeNetwork) { n.gateway4 = netip.MustParseAddr("192.0.2.2") })
		synctest.Wait()
		if is := o.engine.last().Peers; is[1].Address != netip.MustParseAddr("192.0.2.2") {
			t.Errorf("with another gateway: %+v", is)
		}
	})
}

// TestRouterIDStays: another one would end all sessions.
func TestRouterIDStays(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		identified := tor()
		identified.Name, identified.Gateway, identified.Address, identified.RouterID = "identified", "IPv6", netip.Addr{}, netip.MustParseAddr("10.9.9.9")
		identified.PasswordSecret = "identified"
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{tor()} })
		close(o.synced)
		expect := func(why, want string) {
			t.Helper()
			synctest.Wait()
			if got := o.engine.last().RouterID.String(); got != want {
				t.Errorf("%s: the router ID is %s, want %s", why, got, want)
			}
		}
		expect("at first", "198.51.100.11")
		o.network.set(func(n *fakeNetwork) { n.own = append([]netip.Addr{netip.MustParseAddr("10.1.1.1")}, n.own...) })
		expect("with another address", "198.51.100.11")
		o.network.set(func(n *fakeNetwork) { n.own = nil })
		expect("without addresses", "198.51.100.11")
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{identified, tor()} })
		expect("with a peer that gives one, but is not found", "10.9.9.9")
		o.network.set(func(n *fakeNetwork) { n.gateway6 = netip.MustParseAddr("fe80::1%eth0") })
		expect("with a peer that gives one, but has no password", "10.9.9.9")
		o.setPassword("", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "identified"}, Data: map[string][]byte{"password": []byte("hidden")}})
		expect("with a peer that gives one", "10.9.9.9")
		o.reconfigure(func(c *config.Config) { c.BGPPeers = []*config.BGPPeer{tor()} })
		expect("as at first", "198.51.100.11")
	})
}

func TestBFDEndsTheSession(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.reconfigure(func(c *config.Config) {
			p := tor()
			p.BFD = &config.BFDProfile{Name: "quick", Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 3}
			c.BGPPeers = []*config.BGPPeer{p}
		})
		close(o.synced)
		synctest.Wait()
		if len(o.bfd.last()) != 0 {
			t.Fatalf("BFD before BGP: %v", o.bfd.last())
		}
		time.Sleep(watchPatience)
		synctest.Wait()
		if len(o.bfd.last()) != 1 {
			t.Fatalf("BFD sessions: %v", o.bfd.last())
		}
		s := o.bfd.last()[0]
		for _, st := range []struct {
			status bfd.Status
			reset  bool
		}{
			{bfd.Status{Session: s, State: bfd.Up}, false},
			{bfd.Status{Session: s, State: bfd.Down, Diagnostic: bfd.NeighborSignaledDown}, false}, // the peer's AdminDown is no failure
			{bfd.Status{Session: s, State: bfd.Up}, false},
			{bfd.Status{Session: s, State: bfd.Down, Diagnostic: bfd.DetectionTimeExpired, Failed: true}, true},
		} {
			o.downs.Changed(st.status)
			synctest.Wait()
			if why, reset := o.engine.resets["tor"]; reset != st.reset || reset && !strings.Contains(why, "detection time") {
				t.Errorf("after %+v: reset %t (%s)", st.status, reset, why)
			}
		}
	})
}
