package router

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// kernelNextHops returns the gateways of a host's route to exactly this prefix, sorted; none if there is no such route.
func kernelNextHops(ctx context.Context, h host.Host, prefix netip.Prefix) ([]netip.Addr, error) {
	flag := "-4"
	if prefix.Addr().Is6() {
		flag = "-6"
	}
	out, err := h.Run(ctx, "ip", flag, "-json", "route", "show", "exact", prefix.String())
	if err != nil {
		return nil, err
	}
	type hop struct {
		Gateway netip.Addr `json:"gateway"`
		Via     struct {
			Host netip.Addr `json:"host"`
		} `json:"via"` // an IPv4 route over an IPv6 neighbour
	}
	var routes []struct {
		hop
		NextHops []hop `json:"nexthops"`
	}
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		return nil, fmt.Errorf("routes of %s: %w: %s", h.Name, err, out)
	}
	var hops []netip.Addr
	for _, r := range routes {
		for _, n := range append(r.NextHops, r.hop) {
			if n.Gateway.IsValid() {
				hops = append(hops, n.Gateway)
			} else if n.Via.Host.IsValid() {
				hops = append(hops, n.Via.Host)
			}
		}
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return hops, nil
}
