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
	mpReach       = 14 // the attribute MP_REACH_NLRI (RFC 4760)
	extendedBit   = 0x10
)

// update is an UPDATE that tells IPv4 routes by MP_REACH_NLRI, taken apart.
type update struct {
	before, after []byte // the other attributes
	head          []byte // family and next hop
	prefixes      []byte
}

// next reads GoBGP's next message. It merges IPv4 routes with IPv6 next hops, which GoBGP tells one by one.
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

// split takes an UPDATE apart.
func split(m []byte) (*update, bool) {
	if m[typeOffset] != packet.BGP_MSG_UPDATE || len(m) < headerLength+4 || m[headerLength] != 0 || m[headerLength+1] != 0 {
		return nil, false
	}
	attributes := m[headerLength+4:]
	if int(binary.BigEndian.Uint16(m[headerLength+2:])) != len(attributes) {
		return nil, false
	}
	for rest := attributes; len(rest) >= 3; {
		start, n := 3, int(rest[2])
		if rest[0]&extendedBit != 0 {
			if len(rest) < 4 {
				return nil, false
			}
			start, n = 4, int(binary.BigEndian.Uint16(rest[2:]))
		}
		if start+n > len(rest) {
			return nil, false
		}
		value := rest[start : start+n]
		if rest[1] == mpReach {
			// AFI, SAFI, the next hop with its length, and a reserved byte.
			if n < 5 || value[0] != 0 || value[1] != 1 || n < 5+int(value[3]) {
				return nil, false
			}
			head := 5 + int(value[3])
			return &update{
				before: attributes[:len(attributes)-len(rest)], after: rest[start+n:],
				head: value[:head], prefixes: bytes.Clone(value[head:]),
			}, true
		}
		rest = rest[start+n:]
	}
	return nil, false
}

// merge adds a message's routes, if they differ in nothing else and there is room.
func (u *update) merge(m []byte) bool {
	other, ok := split(m)
	if !ok || !bytes.Equal(u.before, other.before) || !bytes.Equal(u.after, other.after) || !bytes.Equal(u.head, other.head) ||
		len(u.prefixes)+len(m) > maxMessage-1 { // the attribute's length may need another byte
		return false
	}
	u.prefixes = append(u.prefixes, other.prefixes...)
	return true
}

func (u *update) message() []byte {
	reach := append(bytes.Clone(u.head), u.prefixes...)
	attributes := bytes.Clone(u.before)
	attributes = append(attributes, 0x80|extendedBit, mpReach)
	attributes = binary.BigEndian.AppendUint16(attributes, uint16(len(reach)))
	attributes = append(append(attributes, reach...), u.after...)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attributes)))
	return newMessage(packet.BGP_MSG_UPDATE, append(body, attributes...)...)
}
