package peering

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bfd"
)

// TestBFDWithFRR has sessions of all kinds at a time.
func TestBFDWithFRR(t *testing.T) {
	link, own := linkLocal(t, "frr"), linkLocal(t, "node")
	f := frr(t, "frr", frrSteady("192.0.2.11")+frrSteady("2001:db8:1::11 local-address 2001:db8:1::1")+
		frrSteady(fmt.Sprintf("%s local-address %s interface eth0", own, link)))
	distant := frr(t, far, frrSteady("192.0.2.11 multihop local-address 198.51.100.2")+frrSteady("2001:db8:1::11 multihop local-address 2001:db8:2::2"))
	peers := []netip.Addr{addr4("frr"), addr6("frr"), link.WithZone("eth0"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")}
	var sessions []bfd.Session
	for i, p := range peers {
		s := steady(p)
		s.Multiplier = 25
		if i > 2 {
			s.Multihop, s.MinimumTTL = true, 254
		}
		sessions = append(sessions, s)
	}
	d := newDetector(t, sessions...)
	d.up(peers...)
	agreed := func(p frrBFD) bool {
		return p.Status == "up" && p.Receive == 100 && p.Transmit == 100 && p.Multiplier == 20 && p.RemoteReceive == 100 && p.RemoteTransmit == 100 && p.RemoteMultiplier == 25
	}
	for _, peer := range []netip.Addr{addr4("node"), addr6("node"), own} {
		frrSays(t, f, peer.String(), "up with our timers", agreed)
	}
	for _, peer := range []netip.Addr{addr4("node"), addr6("node")} {
		frrSays(t, distant, peer.String(), "up with our timers, over a router", agreed)
	}
	eventually(t, "our side to know FRR's timers", func() error {
		for _, s := range d.Statuses() {
			if s.DetectionTime != 2*time.Second || s.TransmitInterval != 100*time.Millisecond || s.LastError != "" {
				return fmt.Errorf("it says %+v", s)
			}
		}
		return nil
	})
	if ours, theirs := d.status(addr4("frr")), frrPeers(t, f)["192.0.2.11"]; ours.Discriminator != theirs.RemoteID || ours.RemoteDiscriminator != theirs.ID || ours.Source != addr4("node") {
		t.Errorf("we say %+v, FRR says %+v", ours, theirs)
	}

	for _, change := range []struct {
		name   string
		theirs int // milliseconds
		ours   time.Duration
	}{
		{"FRR's slower", 400, 100 * time.Millisecond},
		{"ours slower", 400, 600 * time.Millisecond},
		{"FRR's faster", 50, 600 * time.Millisecond},
		{"ours faster", 50, 50 * time.Millisecond},
	} {
		if err := f.Configure(t.Context(), frrSession("192.0.2.11", change.theirs, 20)); err != nil {
			t.Fatal(err)
		}
		sessions[0].Transmit, sessions[0].Receive = change.ours, change.ours
		d.Sync(sessions)
		frrSays(t, f, "192.0.2.11", "that of other timers: "+change.name, func(p frrBFD) bool {
			return p.Status == "up" && p.Transmit == change.theirs && p.RemoteTransmit == int(change.ours.Milliseconds()) && p.RemoteReceive == p.RemoteTransmit
		})
		eventually(t, "our timers to be agreed: "+change.name, func() error {
			want := max(change.ours, time.Duration(change.theirs)*time.Millisecond)
			if s := d.status(addr4("frr")); s.TransmitInterval != want || s.DetectionTime != 20*want {
				return fmt.Errorf("we say %+v", s)
			}
			return nil
		})
	}
	if d.downs() > 0 {
		t.Errorf("a session was lost: %+v", d.Statuses())
	}
}

// TestBFDCut pulls the cable of a router, by which another is reached, too.
func TestBFDCut(t *testing.T) {
	f := frr(t, "frr", frrFast("192.0.2.11")+frrFast("2001:db8:1::11 local-address 2001:db8:1::1"))
	frr(t, far, frrFast("192.0.2.11 multihop local-address 198.51.100.2"))
	distant := fast(netip.MustParseAddr("198.51.100.2"))
	distant.Multihop = true
	sessions := []bfd.Session{fast(addr4("frr")), fast(addr6("frr")), distant}
	d := newDetector(t, sessions...)
	for _, s := range sessions {
		d.up(s.Peer)
	}
	frrSays(t, f, "192.0.2.11", "up", func(p frrBFD) bool { return p.Status == "up" && p.RemoteTransmit == 100 })
	began := time.Now()
	plug(t, "frr", false)
	for _, s := range sessions {
		var n told
		eventually(t, fmt.Sprintf("%s to fail", s.Peer), func() (err error) {
			var ok bool
			if n, ok = d.first(began, s.Peer, hasFailed); !ok {
				err = fmt.Errorf("it is %+v", d.status(s.Peer))
			}
			return err
		})
		if took := n.at.Sub(began); took > 2*time.Second {
			t.Errorf("it took %v to notice that %s is gone", took, s.Peer)
		} else {
			t.Logf("%s is known to be gone %v after the cable was pulled", s.Peer, took)
		}
	}
	frrSays(t, f, "192.0.2.11", "down", func(p frrBFD) bool { return p.Status == "down" && p.Diagnostic == "control detection time expired" })
	plug(t, "frr", true)
	for _, s := range sessions {
		d.up(s.Peer)
	}
	frrSays(t, f, "192.0.2.11", "up again", frrUp)
}

// TestBFDPassive has one side wait for the other.
func TestBFDPassive(t *testing.T) {
	frr(t, "frr", frrSteady("192.0.2.11"))
	f := frr(t, "frr2", "bfd\n peer 192.0.2.11\n  passive-mode\n exit\nexit\n")
	passive := steady(addr4("frr"))
	passive.Passive = true
	d := newDetector(t, passive, steady(addr4("frr2")))
	d.up(addr4("frr"), addr4("frr2"))
	frrSays(t, f, "192.0.2.11", "up", frrUp)
}

// TestBFDOnPurpose: what is taken down on purpose, on either side, has not failed (RFC 5882, section 4.2).
func TestBFDOnPurpose(t *testing.T) {
	f := frr(t, "frr", frrSteady("192.0.2.11"))
	peer := addr4("frr")
	d := newDetector(t, steady(peer))
	d.up(peer)
	if err := f.Configure(t.Context(), "bfd\n peer 192.0.2.11\n  shutdown\n exit\nexit\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "FRR's shutdown to be seen", func() error {
		if s := d.status(peer); s.State != bfd.Down || s.RemoteState != bfd.AdminDown || s.Failed {
			return fmt.Errorf("we say %+v", s)
		}
		return nil
	})
	if err := f.Configure(t.Context(), "bfd\n peer 192.0.2.11\n  no shutdown\n exit\nexit\n"); err != nil {
		t.Fatal(err)
	}
	d.up(peer)
	frrSays(t, f, "192.0.2.11", "up again", frrUp)
	if n, ok := d.first(time.Time{}, peer, hasFailed); ok {
		t.Errorf("it was told that %+v", n.Status)
	}

	d.Sync(nil)
	frrSays(t, f, "192.0.2.11", "down on purpose", func(p frrBFD) bool { return p.Status == "down" && p.RemoteDiagnostic == "administratively down" })
	d.Sync([]bfd.Session{steady(peer)})
	d.up(peer)
	frrSays(t, f, "192.0.2.11", "up again", frrUp)
	d.stop()
	frrSays(t, f, "192.0.2.11", "down on purpose", func(p frrBFD) bool { return p.Status == "down" && p.RemoteDiagnostic == "administratively down" })
}

// TestBFDRestarts: FRR's daemon is killed and started again, and sends from another discriminator.
func TestBFDRestarts(t *testing.T) {
	f := frr(t, "frr", frrSteady("192.0.2.11"))
	peer := addr4("frr")
	d := newDetector(t, steady(peer))
	d.up(peer)
	before := d.status(peer)
	if err := f.Daemon("bfdd").Stop(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death of bfdd to be noticed", func() error {
		if s := d.status(peer); !s.Failed || s.LastError == "" {
			return fmt.Errorf("we say %+v", s)
		}
		return nil
	})
	t.Log(d.status(peer).LastError)
	if err := f.Start(t.Context(), "bfdd"); err != nil {
		t.Fatal(err)
	}
	if err := f.Configure(t.Context(), frrSteady("192.0.2.11")); err != nil {
		t.Fatal(err)
	}
	d.up(peer)
	if s := d.status(peer); s.RemoteDiscriminator == before.RemoteDiscriminator || s.Discriminator != before.Discriminator || s.Ups != 2 {
		t.Errorf("it was %+v and is %+v", before, s)
	}
}
