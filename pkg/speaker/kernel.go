package speaker

import (
	"context"
	"log/slog"
	"net/netip"

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
	go func() {
		for {
			select {
			case <-moved:
			case <-k.Discovery.Changed():
			case <-ctx.Done():
				return
			}
			select {
			case k.changed <- struct{}{}:
			default:
			}
		}
	}()
	return k, nil
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
