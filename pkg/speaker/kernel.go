package speaker

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/bgp/place"
	"github.com/steelyard-lb/steelyard/pkg/bgp/unnumbered"
)

// kernel is the Network that this node's kernel knows.
type kernel struct {
	*unnumbered.Discovery
	log     *slog.Logger
	changed chan struct{}
}

func newKernel(ctx context.Context, o Options) (*kernel, error) {
	moved, err := place.Watch(ctx)
	if err != nil {
		return nil, err
	}
	k := &kernel{Discovery: unnumbered.New(o.Log), log: o.Log, changed: make(chan struct{}, 1)}
	go func() {
		if err := k.Run(ctx); err != nil {
			o.Log.Error("peers at the other end of interfaces can't be found", "error", err)
		}
	}()
	go relayPaced(ctx, k.changed, moved, k.Discovery.Changed())
	return k, nil
}

// movePause is the least time between two looks at what the kernel knows: pods come and go, and so do routes, by the hundred.
const movePause = 100 * time.Millisecond

// relayPaced passes on what either channel says: the first at once, and what follows within movePause as one.
func relayPaced(ctx context.Context, to chan<- struct{}, a, b <-chan struct{}) {
	for {
		select {
		case <-a:
		case <-b:
		case <-ctx.Done():
			return
		}
		nudge(to)
		select {
		case <-time.After(movePause):
		case <-ctx.Done():
			return
		}
	}
}

// Locate implements Network.
func (k *kernel) Locate(peer netip.Addr, device string) (place.Place, error) {
	return place.Locate(peer, device)
}

// Gateways implements Network.
func (k *kernel) Gateways() (v4, v6 netip.Addr) {
	v4, v6, err := place.Gateways()
	if err != nil {
		k.log.Warn("can't read this node's default routes", "error", err)
	}
	return v4, v6
}

// Own implements Network.
func (k *kernel) Own() []netip.Addr {
	own, err := place.Own()
	if err != nil {
		k.log.Warn("can't read this node's addresses", "error", err)
	}
	return own
}

// Neighbours implements Network.
func (k *kernel) Neighbours(interfaces []string) map[string]netip.Addr {
	k.Sync(interfaces)
	return k.Peers()
}

// Changed implements Network.
func (k *kernel) Changed() <-chan struct{} { return k.changed }
