package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Range is a run of addresses of one family, From and To included.
type Range struct{ From, To netip.Addr }

// Contains tells whether the address lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.From.BitLen() == a.BitLen() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// String returns the range as ParseRange reads it.
func (r Range) String() string {
	if r.From == r.To {
		return netip.PrefixFrom(r.From, r.From.BitLen()).String()
	}
	return r.From.String() + "-" + r.To.String()
}

// compare orders ranges by their first address, IPv4 first.
func (r Range) compare(s Range) int {
	return cmp.Or(r.From.Compare(s.From), r.To.Compare(s.To))
}

// ParseRange reads "192.0.2.0/24", "192.0.2.10-192.0.2.20" or their IPv6 likes, with spaces around the addresses. A CIDR stands
// for its whole network, whichever address of it is written. The error says what to write instead.
func ParseRange(s string) (Range, error) {
	text := strings.TrimSpace(s)
	if first, last, ok := strings.Cut(text, "-"); ok {
		return parseSpan(text, strings.TrimSpace(first), strings.TrimSpace(last))
	}
	if addr, _, ok := strings.Cut(text, "/"); ok {
		return parseCIDR(text, addr)
	}
	addr, err := parseAddr(text)
	if err != nil {
		return Range{}, fmt.Errorf("%w: write a CIDR such as 192.0.2.0/24, or the first and the last address such as 192.0.2.10-192.0.2.20", err)
	}
	return Range{}, fmt.Errorf("%q is a single address: write %s/%d", text, addr, addr.BitLen())
}

func parseCIDR(text, addr string) (Range, error) {
	from, err := parseAddr(addr)
	if err != nil {
		return Range{}, fmt.Errorf("%q: %w: write a CIDR such as 192.0.2.0/24 or 2001:db8::/120", text, err)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return Range{}, fmt.Errorf("%q has no such prefix length: write /0 to /%d after the address", text, from.BitLen())
	}
	prefix = prefix.Masked()
	return Range{From: prefix.Addr(), To: last(prefix)}, nil
}

func parseSpan(text, first, end string) (Range, error) {
	from, err := parseAddr(first)
	if err != nil {
		return Range{}, fmt.Errorf("%q: %w: write the first and the last address such as 192.0.2.10-192.0.2.20", text, err)
	}
	to, err := parseAddr(end)
	if err != nil {
		return Range{}, fmt.Errorf("%q: %w: write the whole last address such as %s-%s", text, err, from, guessEnd(from, end))
	}
	if from.BitLen() != to.BitLen() {
		return Range{}, fmt.Errorf("%q mixes IPv4 and IPv6: write one range for each family", text)
	}
	if to.Less(from) {
		return Range{}, fmt.Errorf("%q runs backwards: write %s-%s", text, to, from)
	}
	return Range{From: from, To: to}, nil
}

// parseAddr is as strict as the ip() function of the CRD's schema: no zone, no IPv4 in IPv6, no leading zeros.
func parseAddr(s string) (netip.Addr, error) {
	a, err := parseZonedAddr(s)
	if err == nil && a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone, which can't be used here", s)
	}
	return a, err
}

func parseZonedAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is IPv4 in IPv6 clothing, write it as %s", s, a.Unmap())
	}
	return a, nil
}

// guessEnd returns what the author of "192.0.2.10-20" meant, else a neighbour of `from` that makes an example.
func guessEnd(from netip.Addr, end string) netip.Addr {
	if n, err := strconv.ParseUint(end, 10, 8); err == nil && from.Is4() {
		b := from.As4()
		b[3] = byte(n)
		if to := netip.AddrFrom4(b); !to.Less(from) {
			return to
		}
	}
	if next := from.Next(); next.IsValid() {
		return next
	}
	return from
}

// last returns the highest address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
