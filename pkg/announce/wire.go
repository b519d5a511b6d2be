package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The wire format of claims: a byte for format and kind, the owners' names (a count, then each with its length), and the claims:
// a byte of flags, the address (4 or 16 bytes), the owner (0 for none, else 1 + index), the epoch. Numbers are uvarints.
const (
	formatDelta = 0x10 // some claims that are new
	formatFull  = 0x11 // the sender's whole table
)

const (
	flagIPv6 = 1 << iota
	flagQuorum
	flagProbing
	knownFlags = 1<<iota - 1
)

const (
	maxOwner = 253     // a node's name is a DNS name: RFC 1123
	maxEpoch = 1 << 62 // keeps Epoch+1 from wrapping round
)

// State encodes the whole table.
func (c *Claims) State() []byte { return encode(formatFull, c.Sorted()) }

// Messages encodes the claims in as few messages as possible of at most `limit` bytes each. A claim that is larger than that by
// itself gets a message of its own.
func Messages(claims []Claim, limit int) [][]byte {
	var messages [][]byte
	for start := 0; start < len(claims); {
		size, owners, end := 1+binary.MaxVarintLen16, map[string]bool{"": true}, start
		for ; end < len(claims); end++ {
			n := 1 + 16 + binary.MaxVarintLen16 + uvarintLen(claims[end].Epoch)
			if owner := claims[end].Owner; !owners[owner] {
				owners[owner] = true
				n += binary.MaxVarintLen16 + len(owner)
			}
			if size += n; size > limit && end > start {
				break
			}
		}
		messages = append(messages, encode(formatDelta, claims[start:end]))
		start = end
	}
	return messages
}

func encode(format byte, claims []Claim) []byte {
	index := map[string]uint64{"": 0}
	var names []byte
	for _, c := range claims {
		if _, ok := index[c.Owner]; !ok {
			index[c.Owner] = uint64(len(index))
			names = binary.AppendUvarint(names, uint64(len(c.Owner)))
			names = append(names, c.Owner...)
		}
	}
	b := binary.AppendUvarint([]byte{format}, uint64(len(index)-1))
	b = append(b, names...)
	for _, c := range claims {
		var flags byte
		if c.Addr.Is6() {
			flags |= flagIPv6
		}
		if c.Quorum {
			flags |= flagQuorum
		}
		if c.Probing {
			flags |= flagProbing
		}
		b = append(b, flags)
		b = append(b, c.Addr.AsSlice()...)
		b = binary.AppendUvarint(b, index[c.Owner])
		b = binary.AppendUvarint(b, c.Epoch)
	}
	return b
}

// Decode reads what State (full) or Messages made. An error means that none of it is to be used.
func Decode(b []byte) (claims []Claim, full bool, err error) {
	if len(b) == 0 || b[0] != formatDelta && b[0] != formatFull {
		return nil, false, errors.New("not a message of claims, or of a newer version")
	}
	r := reader{rest: b[1:]}
	owners := []string{""}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		owners = append(owners, r.owner())
	}
	for len(r.rest) > 0 && r.err == nil {
		claims = append(claims, r.claim(owners))
	}
	if r.err != nil {
		return nil, false, r.err
	}
	return claims, b[0] == formatFull, nil
}

// reader takes a message apart. After the first error it returns zero values.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.err = errors.New("message of claims is cut short")
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.take(uint64(len(r.rest)) + 1)
		return 0
	}
	r.take(uint64(n))
	return v
}

func (r *reader) owner() string {
	n := r.uvarint()
	if r.err == nil && (n == 0 || n > maxOwner) {
		r.err = fmt.Errorf("owner's name has %d bytes", n)
	}
	return string(r.take(n))
}

func (r *reader) claim(owners []string) Claim {
	flags := r.take(1)
	if r.err == nil && flags[0] > knownFlags {
		r.err = fmt.Errorf("claim has unknown flags %#x", flags[0])
	}
	if r.err != nil {
		return Claim{}
	}
	size := uint64(4)
	if flags[0]&flagIPv6 != 0 {
		size = 16
	}
	addr, _ := netip.AddrFromSlice(r.take(size))
	owner, epoch := r.uvarint(), r.uvarint()
	switch {
	case r.err != nil:
	case addr.Is4In6():
		r.err = fmt.Errorf("claim on %v, which is an IPv4 address in IPv6 form", addr)
	case owner >= uint64(len(owners)):
		r.err = fmt.Errorf("claim on %v by owner number %d of %d", addr, owner, len(owners)-1)
	case epoch == 0 || epoch > maxEpoch:
		r.err = fmt.Errorf("claim on %v has epoch %d", addr, epoch)
	default:
		return Claim{
			Addr: addr, Owner: owners[owner], Epoch: epoch,
			Quorum: flags[0]&flagQuorum != 0, Probing: flags[0]&flagProbing != 0,
		}
	}
	return Claim{}
}

func uvarintLen(v uint64) int { return len(binary.AppendUvarint(nil, v)) }
