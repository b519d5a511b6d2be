package gobgp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// mergePatience is how long an UPDATE that others may be merged with is held.
	mergePatience = 2 * time.Millisecond
	maxMessage    = 4096
	extendedBit   = 0x10 // of an attribute whose length has two bytes
)

// update is an UPDATE that says one thing of some prefixes, taken apart.
type update struct {
	withdrawn     bool   // it withdraws IPv4 prefixes, and has no attributes
	multiprotocol byte   // the attribute with the prefixes (RFC 4760); 0 if they stand at the end
	before, after []byte // the attributes, or those on both sides of that one
	head          []byte // what that one has before the prefixes: family and next hop
	prefixes      []byte
}

// next reads GoBGP's next message, merged with those after it that say the same of other prefixes. GoBGP sends what it has as soon as
// it can, and tells IPv4 routes with IPv6 next hops one by one.
func (l *link) next(from *bufio.Reader) ([]byte, error) {
	m, err := readMessage(from)
	if err != nil {
		return nil, err
	}
	u, ok := split(m)
	if !ok {
		return m, nil
	}
	_ = l.engine.SetReadDeadline(time.Now().Add(mergePatience))
	defer func() { _ = l.engine.SetReadDeadline(time.Time{}) }()
	merged := false
	for {
		other, ok := peek(from)
		if !ok || !u.merge(other) {
			break
		}
		_, _ = from.Discard(len(other))
		merged = true
	}
	if merged {
		m = u.message()
	}
	return m, nil
}

// peek returns the message that comes next, if it comes soon.
func peek(from *bufio.Reader) ([]byte, bool) {
	header, err := from.Peek(headerLength)
	if err != nil {
		return nil, false
	}
	m, err := from.Peek(max(int(binary.BigEndian.Uint16(header[16:])), headerLength))
	return m, err == nil
}

// split takes an UPDATE apart. It shares no memory with m.
func split(m []byte) (*update, bool) {
	if m[typeOffset] != packet.BGP_MSG_UPDATE || len(m) > maxMessage {
		return nil, false
	}
	withdrawn, rest, ok := block(bytes.Clone(m[headerLength:]))
	if !ok {
		return nil, false
	}
	attributes, prefixes, ok := block(rest)
	switch {
	case !ok:
		return nil, false
	case len(withdrawn) > 0:
		return &update{withdrawn: true, prefixes: withdrawn}, len(attributes)+len(prefixes) == 0
	}
	u := &update{before: attributes, prefixes: prefixes}
	for rest := attributes; len(rest) > 0; {
		kind, value, next, ok := attribute(rest)
		if !ok {
			return nil, false
		}
		if t := packet.BGPAttrType(kind); t == packet.BGP_ATTR_TYPE_MP_REACH_NLRI || t == packet.BGP_ATTR_TYPE_MP_UNREACH_NLRI {
			head := 3 // AFI and SAFI
			if t == packet.BGP_ATTR_TYPE_MP_REACH_NLRI && len(value) > 3 {
				head = 5 + int(value[3]) // the next hop with its length, and a reserved byte
			}
			if u.multiprotocol != 0 || len(prefixes) > 0 || len(value) < head {
				return nil, false
			}
			u = &update{multiprotocol: kind, before: attributes[:len(attributes)-len(rest)], after: next, head: value[:head], prefixes: value[head:]}
			prefixes = nil
		}
		rest = next
	}
	return u, len(u.prefixes) > 0 // an End-of-RIB has none
}

// block cuts off what begins with its length.
func block(b []byte) (inside, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], true
}

// attribute cuts off a path attribute (RFC 4271, section 4.3).
func attribute(b []byte) (kind byte, value, rest []byte, ok bool) {
	start := 3
	if b[0]&extendedBit != 0 {
		start = 4
	}
	if len(b) < start {
		return 0, nil, nil, false
	}
	n := int(b[2])
	if start == 4 {
		n = int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < start+n {
		return 0, nil, nil, false
	}
	return b[1], b[start : start+n], b[start+n:], true
}

// merge adds a message's prefixes, if it says the same and there is room.
func (u *update) merge(m []byte) bool {
	other, ok := split(m)
	if !ok || u.withdrawn != other.withdrawn || u.multiprotocol != other.multiprotocol || !bytes.Equal(u.before, other.before) ||
		!bytes.Equal(u.after, other.after) || !bytes.Equal(u.head, other.head) ||
		len(u.prefixes)+len(m) > maxMessage-1 { // the length of the attribute may need another byte
		return false
	}
	u.prefixes = append(u.prefixes[:len(u.prefixes):len(u.prefixes)], other.prefixes...)
	return true
}

func (u *update) message() []byte {
	put := func(to []byte, b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(to, uint16(len(b))), b...)
	}
	if u.withdrawn {
		return newMessage(packet.BGP_MSG_UPDATE, put(put(nil, u.prefixes), nil)...)
	}
	attributes, prefixes := u.before, u.prefixes
	if u.multiprotocol != 0 {
		attributes = append(bytes.Clone(u.before), byte(packet.BGP_ATTR_FLAG_OPTIONAL)|extendedBit, u.multiprotocol)
		attributes = append(put(attributes, append(bytes.Clone(u.head), u.prefixes...)), u.after...)
		prefixes = nil
	}
	return newMessage(packet.BGP_MSG_UPDATE, append(put(put(nil, nil), attributes), prefixes...)...)
}
