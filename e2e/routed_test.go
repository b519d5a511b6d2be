package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// routed is a pool that only routers hear of, and the router as a peer in both families.
const routed = `
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: routed}
spec: {addresses: [198.18.0.0/24, 2001:db8:18::/120], autoAssign: false}
---
apiVersion: steelyard.io/v1beta1
kind: BGPPeer
metadata: {name: tor-v4}
spec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1, connectTime: 1s%[1]s}
---
apiVersion: steelyard.io/v1beta1
kind: BGPPeer
metadata: {name: tor-v6}
spec: {myASN: 64500, peerASN: 64512, peerAddress: "2001:db8:1::1", connectTime: 1s%[1]s}
`

const told = `
---
apiVersion: steelyard.io/v1beta1
kind: BGPAdvertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed]%s}
`

// peer says more about the BGPPeers of routed.
func routedBy(peer, advertisement string) string {
	return fmt.Sprintf(routed, comma(peer)) + fmt.Sprintf(told, comma(advertisement))
}

func comma(fields string) string {
	if fields == "" {
		return ""
	}
	return ", " + fields
}

// frr runs the lab's router until the scenario ends.
func frr(t *testing.T, config string) *router.FRR {
	t.Helper()
	r, err := lab.StartRouter(t.Context(), config)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			out, err := r.Vtysh(context.Background(), "show bgp summary", "show bgp ipv4 unicast", "show bgp ipv6 unicast", "show bfd peers")
			t.Log(out, err)
			out, err = lab.Kubectl(context.Background(), "get", "bgpsessions,serviceannouncements", "-A")
			t.Log(out, err)
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func plainRouter(t *testing.T) *router.FRR {
	t.Helper()
	return frr(t, lab.RouterConfig())
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func nextHops(t *testing.T, r *router.FRR, p netip.Prefix, nodes ...string) {
	t.Helper()
	must(t, lab.AwaitNextHops(t.Context(), r, p, nodes...))
}

// learned waits until every path to a prefix that the router has from these nodes is as it should be.
func learned(t *testing.T, r *router.FRR, p netip.Prefix, nodes []string, check func(router.Path) error) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("the router to learn %s from %s", p, strings.Join(nodes, ", ")), func(ctx context.Context) error {
		paths, err := r.Route(ctx, p)
		if err != nil {
			return err
		}
		if len(paths) != len(nodes) {
			return fmt.Errorf("it has %d paths: %+v", len(paths), paths)
		}
		for _, path := range paths {
			if err := check(path); err != nil {
				return fmt.Errorf("%w in %+v", err, path)
			}
		}
		return nil
	}))
}

// session waits until a node's session with a peer is as it should be.
func session(t *testing.T, node, peer string, check func(v1beta1.BGPSessionStatus) error) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("the session of %s with %s", node, peer), func(ctx context.Context) error {
		var s v1beta1.BGPSession
		if err := lab.Get(ctx, client.ObjectKey{Name: node + "." + peer}, &s); err != nil {
			return err
		}
		if err := check(s.Status); err != nil {
			return fmt.Errorf("%w, it is %+v", err, s.Status)
		}
		return nil
	}))
}
