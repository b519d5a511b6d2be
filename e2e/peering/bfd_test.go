package peering

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
)

// detector is a Speaker in the node, and all that it told.
type detector struct {
	*bfd.Speaker
	t    *testing.T
	stop func()

	mu   sync.Mutex
	news []told
}

type told struct {
	at time.Time
	bfd.Status
}

// newDetector runs a Speaker until the test ends, or stop is called.
func newDetector(t *testing.T, sessions ...bfd.Session) *detector {
	t.Helper()
	d := &detector{t: t}
	d.Speaker = bfd.New(bfd.Config{
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Changed: func(s bfd.Status) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.news = append(d.news, told{time.Now(), s})
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	d.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, s := range d.Statuses() {
				t.Logf("%+v", s)
			}
		}
		d.stop()
	})
	d.Sync(sessions)
	return d
}

// status returns how the session with a peer stands.
func (d *detector) status(peer netip.Addr) bfd.Status {
	for _, s := range d.Statuses() {
		if s.Peer == peer {
			return s
		}
	}
	return bfd.Status{}
}

// up waits until the sessions with these peers are up.
func (d *detector) up(peers ...netip.Addr) {
	d.t.Helper()
	for _, peer := range peers {
		eventually(d.t, "BFD with "+peer.String(), func() error {
			if s := d.status(peer); s.State != bfd.Up {
				return fmt.Errorf("it is %+v", s)
			}
			return nil
		})
	}
}

// downs counts how often sessions ceased to be up.
func (d *detector) downs() (n uint64) {
	for _, s := range d.Statuses() {
		n += s.Downs
	}
	return n
}

// first returns the first news since then about a peer that are of this kind.
func (d *detector) first(since time.Time, peer netip.Addr, kind func(bfd.Status) bool) (told, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.news {
		if n.at.After(since) && n.Peer == peer && kind(n.Status) {
			return n, true
		}
	}
	return told{}, false
}

// frrBFD is what FRR tells of a session. Its intervals are in milliseconds.
type frrBFD struct {
	Multihop         bool   `json:"multihop"`
	Peer             string `json:"peer"`
	Local            string `json:"local"`
	Interface        string `json:"interface"`
	ID               uint32 `json:"id"`
	RemoteID         uint32 `json:"remote-id"`
	Status           string `json:"status"`
	Diagnostic       string `json:"diagnostic"`
	RemoteDiagnostic string `json:"remote-diagnostic"`
	Receive          int    `json:"receive-interval"`
	Transmit         int    `json:"transmit-interval"`
	Multiplier       int    `json:"detect-multiplier"`
	RemoteReceive    int    `json:"remote-receive-interval"`
	RemoteTransmit   int    `json:"remote-transmit-interval"`
	RemoteMultiplier int    `json:"remote-detect-multiplier"`
}

// frrPeers returns FRR's sessions by their peer.
func frrPeers(t *testing.T, f *router.FRR) map[string]frrBFD {
	t.Helper()
	var list []frrBFD
	if err := f.JSON(t.Context(), "show bfd peers json", &list); err != nil {
		t.Fatal(err)
	}
	peers := map[string]frrBFD{}
	for _, p := range list {
		peers[p.Peer] = p
	}
	return peers
}

// fast is a session with 3 times 100 ms.
func fast(peer netip.Addr) bfd.Session {
	return bfd.Session{Peer: peer, Transmit: 100 * time.Millisecond, Receive: 100 * time.Millisecond, Multiplier: 3}
}

// steady is a session with 20 times 100 ms, that a busy machine does not end.
func steady(peer netip.Addr) bfd.Session {
	s := fast(peer)
	s.Multiplier = 20
	return s
}

// frrFast and frrSteady are FRR's side of those; peer may be followed by options.
func frrFast(peer string) string { return frrSession(peer, 100, 3) }

func frrSteady(peer string) string { return frrSession(peer, 100, 20) }

func frrSession(peer string, milliseconds, multiplier int) string {
	return fmt.Sprintf("bfd\n peer %s\n  transmit-interval %d\n  receive-interval %d\n  detect-multiplier %d\n exit\nexit\n", peer, milliseconds, milliseconds, multiplier)
}

// frrSays waits until FRR's session with a peer is as ok wants it.
func frrSays(t *testing.T, f *router.FRR, peer, what string, ok func(frrBFD) bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("FRR's session with %s to be %s", peer, what), func() error {
		if p := frrPeers(t, f)[peer]; !ok(p) {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
}

func frrUp(p frrBFD) bool { return p.Status == "up" }

func hasFailed(s bfd.Status) bool { return s.Failed }

// filter has a machine's kernel drop packets by a rule of nftables, until the test ends.
func filter(t *testing.T, machine, hook, rule string) {
	t.Helper()
	table := "bfd_" + hook
	if _, err := on(machine).Run(t.Context(), "nft", fmt.Sprintf("table inet %s { chain c { type filter hook %s priority 0; %s; }; }", table, hook, rule)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := on(machine).Run(context.Background(), "nft", "delete", "table", "inet", table); err != nil {
			t.Error(err)
		}
	})
}
