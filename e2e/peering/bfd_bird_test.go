package peering

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
)

// birdBFD is BIRD's configuration of sessions with these addresses.
func birdBFD(interval string, neighbours ...string) string {
	config := "router id 192.0.2.3;\nprotocol device {}\nprotocol bfd fast {\n interface \"eth0\" { interval " + interval + "; multiplier 20; };\n"
	for _, n := range neighbours {
		config += " neighbor " + n + ";\n"
	}
	return config + "}\n"
}

// birdSays waits until a line of BIRD's table of sessions is about the peer and has these words.
func birdSays(t *testing.T, b *router.BIRD, peer netip.Addr, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("BIRD to say of %s: %v", peer, words), func() error {
		out, err := b.Birdc(t.Context(), "show bfd sessions")
		if err != nil {
			return err
		}
	lines:
		for line := range strings.Lines(out) {
			fields := " " + strings.Join(strings.Fields(line), " ") + " "
			for _, w := range append(words, peer.String()) {
				if !strings.Contains(fields, " "+w+" ") {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("it says %s", out)
	})
}

func TestBFDWithBIRD(t *testing.T) {
	own := linkLocal(t, "node")
	neighbours := []string{"192.0.2.11", "2001:db8:1::11", own.String() + ` dev "eth0"`}
	b := bird(t, "bird", birdBFD("100 ms", neighbours...))
	peers := []netip.Addr{addr4("bird"), addr6("bird"), linkLocal(t, "bird").WithZone("eth0")}
	var sessions []bfd.Session
	for _, p := range peers {
		sessions = append(sessions, steady(p))
	}
	d := newDetector(t, sessions...)
	d.up(peers...)
	for _, a := range []netip.Addr{addr4("node"), addr6("node"), own} {
		birdSays(t, b, a, "Up", "0.100", "2.000")
	}
	eventually(t, "our side to know BIRD's timers", func() error {
		for _, s := range d.Statuses() {
			if s.DetectionTime != 2*time.Second || s.TransmitInterval != 100*time.Millisecond || s.LastError != "" {
				return fmt.Errorf("it says %+v", s)
			}
		}
		return nil
	})

	if err := b.Configure(t.Context(), birdBFD("400 ms", neighbours...)); err != nil {
		t.Fatal(err)
	}
	birdSays(t, b, addr4("node"), "Up", "0.400", "8.000")
	for i := range sessions {
		sessions[i].Transmit, sessions[i].Receive = 600*time.Millisecond, 600*time.Millisecond
	}
	d.Sync(sessions)
	birdSays(t, b, addr4("node"), "Up", "0.600", "12.000")
	if err := b.Configure(t.Context(), birdBFD("50 ms", neighbours...)); err != nil {
		t.Fatal(err)
	}
	for i := range sessions {
		sessions[i].Transmit, sessions[i].Receive = 50*time.Millisecond, 50*time.Millisecond
	}
	d.Sync(sessions)
	birdSays(t, b, addr4("node"), "Up", "0.050", "1.000")
	if d.downs() > 0 {
		t.Errorf("sessions were lost: %+v", d.Statuses())
	}

	d.Sync(sessions[1:])
	birdSays(t, b, addr4("node"), "Down")
	d.Sync(sessions)
	d.up(peers...)

	began := time.Now()
	plug(t, "bird", false)
	for _, peer := range peers {
		eventually(t, fmt.Sprintf("%s to fail", peer), func() (err error) {
			if _, ok := d.first(began, peer, hasFailed); !ok {
				err = fmt.Errorf("it is %+v", d.status(peer))
			}
			return err
		})
	}
	plug(t, "bird", true)
	d.up(peers...)

	// BIRD 2 never says that it takes a session down on purpose.
	began = time.Now()
	if _, err := b.Birdc(t.Context(), "disable fast"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of BIRD's sessions to be noticed", func() (err error) {
		for _, peer := range peers {
			if _, ok := d.first(began, peer, hasFailed); !ok {
				err = fmt.Errorf("it is %+v", d.status(peer))
			}
		}
		return err
	})
}
