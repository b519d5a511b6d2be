package membership

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// The kinds of messages that members send each other inside memberlist's encrypted user messages. Those below
// kindHeartbeat may be passed on by others; all the rest come from their sender directly and so prove that it lives.
type kind byte

const (
	kindReplica   kind = 1 + iota // a piece of replicated state
	kindObituary                  // About has lost power
	kindReturn                    // About was thought to be lost, and lives
	kindHeartbeat                 // From lives
	kindHello                     // From lives, and does not know whether you do
	kindProfile                   // From's metadata has changed
	kindBye                       // From leaves on purpose
	kindDoubt                     // From does not hear About: do you?
	kindVouch                     // From heard About, Age ago
	kindEnd
)

func (k kind) direct() bool { return k >= kindHeartbeat }
func (k kind) about() bool {
	return k == kindObituary || k == kindReturn || k == kindDoubt || k == kindVouch
}

// sighting names one run of a member's speaker, and a moment in it.
type sighting struct {
	Name     string
	Instance uint64        // random, new with each start of the process
	Uptime   time.Duration // of that process; whole milliseconds
}

type message struct {
	Kind  kind
	From  sighting       // of direct messages
	Addr  netip.AddrPort // From's
	About sighting
	Age   time.Duration // of a vouch; whole milliseconds
	Body  []byte        // replica: the state; profile: the metadata
}

var errMessage = errors.New("malformed membership message")

func (m message) encode() []byte {
	b := make([]byte, 0, 64+len(m.Body))
	b = append(b, byte(m.Kind))
	if m.Kind.direct() {
		b = appendSighting(b, m.From)
		b = appendBytes(b, m.Addr.Addr().AsSlice())
		b = binary.BigEndian.AppendUint16(b, m.Addr.Port())
	}
	if m.Kind.about() {
		b = appendSighting(b, m.About)
	}
	if m.Kind == kindVouch {
		b = binary.AppendUvarint(b, uint64(m.Age.Milliseconds()))
	}
	return append(b, m.Body...)
}

// decodeMessage accepts unknown trailing bytes where no body is expected: a later version may add fields.
func decodeMessage(b []byte) (message, error) {
	r := reader{rest: b}
	m := message{Kind: kind(r.byte())}
	if m.Kind == 0 || m.Kind >= kindEnd {
		return message{}, errMessage
	}
	if m.Kind.direct() {
		m.From = r.sighting()
		addr, ok := netip.AddrFromSlice(r.bytes())
		m.Addr = netip.AddrPortFrom(addr.Unmap(), r.uint16())
		if !ok || m.From.Name == "" {
			return message{}, errMessage
		}
	}
	if m.Kind.about() {
		m.About = r.sighting()
	}
	if m.Kind == kindVouch {
		m.Age = r.milliseconds()
	}
	if r.failed {
		return message{}, errMessage
	}
	if m.Kind == kindReplica || m.Kind == kindProfile {
		m.Body = slices.Clone(r.rest)
	}
	return m, nil
}

// profile is what a member tells about itself in memberlist's metadata.
type profile struct {
	Instance   uint64
	Revision   uint64 // counts the changes within one instance
	Leaving    bool
	MACs       []net.HardwareAddr
	Interfaces []string
}

const profileVersion = 1

// encode returns at most limit bytes and the number of MACs and interfaces that did not fit. MACs are sent once
// each (VLANs and bonds share them) and may take half of the room.
func (p profile) encode(limit int) (encoded []byte, dropped int) {
	b := []byte{profileVersion}
	b = binary.BigEndian.AppendUint64(b, p.Instance)
	b = binary.AppendUvarint(b, p.Revision)
	var flags byte
	if p.Leaving {
		flags = 1
	}
	b = append(b, flags)

	var macs [][]byte
	seen := map[string]bool{}
	for _, mac := range p.MACs {
		if len(mac) > 0 && !seen[string(mac)] {
			seen[string(mac)] = true
			macs = append(macs, mac)
		}
	}
	var interfaces [][]byte
	for _, name := range p.Interfaces {
		interfaces = append(interfaces, []byte(name))
	}
	half := len(b) + (limit-len(b))/2
	b, droppedMACs := appendList(b, macs, half)
	b, droppedInterfaces := appendList(b, interfaces, limit)
	return b, droppedMACs + droppedInterfaces
}

func decodeProfile(b []byte) (profile, error) {
	r := reader{rest: b}
	if r.byte() != profileVersion {
		return profile{}, errMessage
	}
	p := profile{Instance: r.uint64(), Revision: r.uvarint()}
	p.Leaving = r.byte()&1 != 0
	for range r.byte() {
		p.MACs = append(p.MACs, slices.Clone(net.HardwareAddr(r.bytes())))
	}
	for range r.byte() {
		p.Interfaces = append(p.Interfaces, string(r.bytes()))
	}
	if r.failed {
		return profile{}, errMessage
	}
	return p, nil
}

// appendList writes as many items as end before limit, after their count.
func appendList(b []byte, items [][]byte, limit int) (_ []byte, dropped int) {
	count := len(b)
	b = append(b, 0)
	for _, item := range items {
		if len(item) > 255 || len(b)+1+len(item) > limit || b[count] == 255 {
			dropped++
			continue
		}
		b = appendBytes(b, item)
		b[count]++
	}
	return b, dropped
}

// appendBytes writes a field of at most 255 bytes; names in Kubernetes have at most 253.
func appendBytes(b, field []byte) []byte {
	field = field[:min(len(field), 255)]
	return append(append(b, byte(len(field))), field...)
}

func appendSighting(b []byte, s sighting) []byte {
	b = appendBytes(b, []byte(s.Name))
	b = binary.BigEndian.AppendUint64(b, s.Instance)
	return binary.AppendUvarint(b, uint64(s.Uptime.Milliseconds()))
}

// reader takes fields from a message; once one is missing, failed stays set and the fields are zero.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.rest) < n {
		r.failed, r.rest = true, nil
		return make([]byte, n)
	}
	field := r.rest[:n]
	r.rest = r.rest[n:]
	return field
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) bytes() []byte  { return r.take(int(r.byte())) }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.take(len(r.rest) + 1)
		return 0
	}
	r.take(n)
	return v
}

// milliseconds reads a duration; values that no clock here can reach count as malformed.
func (r *reader) milliseconds() time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	ms := r.uvarint()
	if ms > uint64(century/time.Millisecond) {
		r.failed = true
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (r *reader) sighting() sighting {
	return sighting{Name: string(r.bytes()), Instance: r.uint64(), Uptime: r.milliseconds()}
}
