package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
)

// WhoHas asks on one interface, by ARP or by a neighbour solicitation, who has an address, listens for the whole of
// wait, and returns the hardware addresses of all that answered, sorted.
func (h Host) WhoHas(addr netip.Addr, iface string, wait time.Duration) (macs []string, err error) {
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", iface, h.Name, err)
		}
		found := map[string]bool{}
		if addr.Is4() {
			err = askARP(ifi, addr, time.Now().Add(wait), found)
		} else {
			err = askNDP(ifi, addr, time.Now().Add(wait), found)
		}
		for mac := range found {
			macs = append(macs, mac)
		}
		slices.Sort(macs)
		return err
	})
	return macs, err
}

func askARP(ifi *net.Interface, addr netip.Addr, deadline time.Time, found map[string]bool) error {
	c, err := arp.Dial(ifi)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	if err := c.Request(addr); err != nil {
		return err
	}
	for {
		packet, _, err := c.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case packet.Operation == arp.OperationReply && packet.SenderIP == addr:
			found[packet.SenderHardwareAddr.String()] = true
		}
	}
}

func askNDP(ifi *net.Interface, addr netip.Addr, deadline time.Time, found map[string]bool) error {
	c, _, err := ndp.Listen(ifi, ndp.LinkLocal)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	group, err := ndp.SolicitedNodeMulticast(addr)
	if err != nil {
		return err
	}
	solicitation := &ndp.NeighborSolicitation{
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ifi.HardwareAddr}},
	}
	if err := c.WriteTo(solicitation, nil, group); err != nil {
		return err
	}
	for {
		message, _, _, err := c.ReadFrom()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		advertisement, ok := message.(*ndp.NeighborAdvertisement)
		if !ok || advertisement.TargetAddress != addr {
			continue
		}
		for _, o := range advertisement.Options {
			if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Target {
				found[l.Addr.String()] = true
			}
		}
	}
}

// Neighbour returns the hardware address that the host's kernel believes addr to have, or "" when it knows none.
func (h Host) Neighbour(ctx context.Context, addr netip.Addr) (string, error) {
	out, err := h.Run(ctx, "ip", "neigh", "show", "to", addr.String())
	if err != nil {
		return "", err
	}
	fields := strings.Fields(out)
	if i := slices.Index(fields, "lladdr"); i >= 0 && i+1 < len(fields) && !strings.Contains(out, "FAILED") {
		return fields[i+1], nil
	}
	return "", nil
}

// MAC returns the hardware address of one of the host's interfaces.
func (h Host) MAC(iface string) (mac string, err error) {
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err == nil {
			mac = ifi.HardwareAddr.String()
		}
		return err
	})
	return mac, err
}
