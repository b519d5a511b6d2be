package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// unsolicited is a filter for what speakers tell the network without being asked: gratuitous ARP of either form, and
// neighbour advertisements to all nodes.
func unsolicited(f family, addr string) string {
	if f.name == "IPv4" {
		return "arp and ether dst ff:ff:ff:ff:ff:ff and arp src host " + addr
	}
	return "icmp6 and dst host ff02::1 and ip6[40] == 136"
}

func TestGratuitousOnlyOnChangeOfOwner(t *testing.T) {
	eachFamily(t, func(t *testing.T, f family) {
		freshSpeakers(t)
		create(t, lbService("quiet", f))
		addr := address(t, "quiet")
		first := owner(t, addr)
		// The burst after the first claim takes 2.2 s.
		must(t, lab.WaitFor(t.Context(), "the first burst to end", func(ctx context.Context) error {
			return metricStands(first, fmt.Sprintf(`steelyard_layer2_gratuitous_sent_total{ip="%s"}`, addr))
		}))
		capture, err := clientHost().Capture(t.Context(), "eth0", unsolicited(f, addr.String()))
		must(t, err)
		// Much happens that changes no owner: another Service's ports, its own label, its owner's speaker crashing.
		update(t, "quiet", func(s *corev1.Service) { s.Labels = map[string]string{"colour": "blue"} })
		if crash(t, first) {
			must(t, lab.WaitFor(t.Context(), "the speaker to announce again", func(context.Context) error {
				return metricAtLeast(first, "steelyard_announced_addresses", 1)
			}))
			ownerAmong(t, addr, first)
			if said := mentioning(capture.Packets(), addr.String()); len(said) > 0 {
				t.Errorf("nothing changed the owner, and yet the network was told\n%s", strings.Join(said, "\n"))
			}
		}
		first = owner(t, addr)
		// A real change is told.
		label(t, first, excludeLabel, "")
		second := ownerAmong(t, addr, others(first)...)
		mac, err := lab.Host(second).MAC("eth0")
		must(t, err)
		must(t, lab.WaitFor(t.Context(), "the new owner to tell the network", func(context.Context) error {
			for _, p := range mentioning(capture.Packets(), addr.String()) {
				if strings.Contains(p, mac) {
					return nil
				}
			}
			return fmt.Errorf("%d packets, none from %s (%s)", len(capture.Packets()), second, mac)
		}))
		capture.Stop()
	})
}

func mentioning(packets []string, addr string) (some []string) {
	for _, p := range packets {
		if strings.Contains(p, addr) {
			some = append(some, p)
		}
	}
	return some
}
