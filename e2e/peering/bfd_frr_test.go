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
	f := frr(t, "frr", frrSession("192.0.2.11")+frrSession("2001:db8:1::11 local-address 2001:db8:1::1")+
		frrSession(fmt.Sprintf("%s local-address %s interface eth0", own, link)))
	distant := frr(t, far, frrSession("192.0.2.11 multihop local-address 198.51.100.2")+frrSession("2001:db8:1::11 multihop local-address 2001:db8:2::2"))
	sessions := []bfd.Session{
		fast(addr4("frr")), fast(addr6("frr")), fast(link.WithZone("eth0")),
		fast(netip.MustParseAddr("198.51.100.2")), fast(netip.MustParseAddr("2001:db8:2::2")),
	}
	for i := range sessions {
		sessions[i].Multiplier = 7
		if sessions[i].Multihop = i > 2; i > 2 {
			sessions[i].MinimumTTL = 254
		}
	}
	d := newDetector(t, sessions...)
	var peers []netip.Addr
	for _, s := range sessions {
		peers = append(peers, s.Peer)
	}
	d.up(peers...)
	agreed := func(p frrBFD) bool {
		return p.Status == "up" && p.Receive == 100 && p.Transmit == 100 && p.Multiplier == 3 && p.RemoteReceive == 100 && p.RemoteTransmit == 100 && p.RemoteMultiplier == 7
	}
	for _, peer := range []netip.Addr{addr4("node"), addr6("node"), own} {
		frrSays(t, f, peer.String(), "up with our timers", agreed)
	}
	for _, peer := range []netip.Addr{addr4("node"), addr6("node")} {
		frrSays(t, distant, peer.String(), "up with our timers, over a router", agreed)
	}
	eventually(t, "our side to know FRR's timers", func() error {
		for _, s := range d.Statuses() {
			if s.DetectionTime != 300*time.Millisecond || s.TransmitInterval != 100*time.Millisecond || s.LastError != "" {
				return fmt.Errorf("it says %+v", s)
			}
		}
		return nil
	})
	if ours, theirs := d.status(addr4("frr")), frrPeers(t, f)["192.0.2.11"]; ours.Discriminator != theirs.RemoteID || ours.RemoteDiscriminator != theirs.ID || ours.Source != addr4("node") {
		t.Errorf("we say %+v, FRR says %+v", ours, theirs)
	}

	began := time.Now()
	for _, change := range []struct {
		name   string
		theirs int
		ours   time.Duration
	}{
		{"FRR's slower", 400, 100 * time.Millisecond},
		{"ours slower", 400, 600 * time.Millisecond},
		{"FRR's faster", 50, 600 * time.Millisecond},
		{"ours faster", 50, 50 * time.Millisecond},
	} {
		if err := f.Configure(t.Context(), fmt.Sprintf("bfd\n peer 192.0.2.11\n  transmit-interval %d\n  receive-interval %d\n exit\nexit\n", change.theirs, change.theirs)); err != nil {
			t.Fatal(err)
		}
		sessions[0].Transmit, sessions[0].Receive = change.ours, change.ours
		d.Sync(sessions)
		frrSays(t, f, "192.0.2.11", "that of the new timers: "+change.name, func(p frrBFD) bool {
			return p.Status == "up" && p.Transmit == change.theirs && p.RemoteTransmit == int(change.ours.Milliseconds()) && p.RemoteReceive == p.RemoteTransmit
		})
		eventually(t, "our timers to be agreed: "+change.name, func() error {
			want := max(change.ours, time.Duration(change.theirs)*time.Millisecond)
			if s := d.status(addr4("frr")); s.TransmitInterval != want || s.DetectionTime != 3*want {
				return fmt.Errorf("we say %+v", s)
			}
			return nil
		})
	}
	if n, ok := d.first(began, addr4("frr"), func(s bfd.Status) bool { return s.State != bfd.Up }); ok || d.downs() > 0 {
		t.Errorf("a session was lost: %+v", n)
	}

	began = time.Now()
	plug(t, "frr", false)
	for _, peer := range peers {
		var n told
		eventually(t, fmt.Sprintf("%s to fail", peer), func() (err error) {
			var ok bool
			if n, ok = d.first(began, peer, hasFailed); !ok {
				err = fmt.Errorf("it is %+v", d.status(peer))
			}
			return err
		})
		if took := n.at.Sub(began); took > 2*time.Second {
			t.Errorf("it took %v to notice that %s is gone", took, peer)
		} else {
			t.Logf("%s is known to be gone %v after the cable was pulled", peer, took)
		}
	}
	plug(t, "frr", true)
	d.up(peers...)
}

// TestBFDOnPurpose: what is taken down on purpose, on either side, has not failed (RFC 5882, section 4.2).
func TestBFDOnPurpose(t *testing.T) {
	f := frr(t, "frr", frrSession("192.0.2.11"))
	peer := addr4("frr")
	d := newDetector(t, fast(peer))
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
	d.Sync([]bfd.Session{fast(peer)})
	d.up(peer)
	frrSays(t, f, "192.0.2.11", "up again", frrUp)
	d.stop()
	frrSays(t, f, "192.0.2.11", "down on purpose", func(p frrBFD) bool { return p.Status == "down" && p.RemoteDiagnostic == "administratively down" })
}

// TestBFDRestarts: FRR's daemon is killed and started again, and sends from another discriminator.
func TestBFDRestarts(t *testing.T) {
	f := frr(t, "frr", frrSession("192.0.2.11"))
	peer := addr4("frr")
	d := newDetector(t, fast(peer))
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
	if err := f.Configure(t.Context(), frrSession("192.0.2.11")); err != nil {
		t.Fatal(err)
	}
	d.up(peer)
	if s := d.status(peer); s.RemoteDiscriminator == before.RemoteDiscriminator || s.Discriminator != before.Discriminator || s.Ups != 2 {
		t.Errorf("it was %+v and is %+v", before, s)
	}
}
