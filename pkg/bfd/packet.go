package bfd

import (
	"encoding/binary"
	"time"
)

const (
	version      = 1
	packetLength = 24 // of a control packet without authentication
	// maxInterval is the longest time that a packet's fields can hold, which count microseconds in 32 bits.
	maxInterval = (1<<32 - 1) * time.Microsecond
)

// The flags of a control packet, as they stand beside the state.
const (
	flagPoll           = 0x20
	flagFinal          = 0x10
	flagAuthentication = 0x04
	flagDemand         = 0x02
	flagMultipoint     = 0x01
)

// packet is a control packet (RFC 5880, section 4.1) without authentication.
type packet struct {
	diagnostic          Diagnostic
	state               State
	poll, final, demand bool
	multiplier          uint8
	mine, yours         uint32 // discriminators, as the sender sees them
	// Intervals are whole microseconds, up to maxInterval.
	desiredTx, requiredRx, requiredEchoRx time.Duration
}

// drop says why a packet is not processed; "" if it is.
type drop string

const (
	dropVersion        drop = "version"
	dropLength         drop = "length"
	dropMultiplier     drop = "multiplier"
	dropMultipoint     drop = "multipoint"
	dropDiscriminator  drop = "discriminator" // the sender's own is zero, or ours is one that we have not given out
	dropState          drop = "state"         // our discriminator is zero although the sender knows it by its state
	dropAuthentication drop = "authentication"
	dropTTL            drop = "ttl"
	dropStranger       drop = "stranger" // there is no session with the sender
)

var drops = []drop{dropVersion, dropLength, dropMultiplier, dropMultipoint, dropDiscriminator, dropState, dropAuthentication, dropTTL, dropStranger}

// parse reads a UDP payload, and makes those checks of RFC 5880, section 6.8.6, that need no session, in its order.
func parse(b []byte) (packet, drop) {
	switch {
	case len(b) < packetLength: // shorter than the least that the Length field may say
		return packet{}, dropLength
	case b[0]>>5 != version:
		return packet{}, dropVersion
	case b[3] < packetLength || b[1]&flagAuthentication != 0 && b[3] < packetLength+2 || int(b[3]) > len(b):
		return packet{}, dropLength
	case b[2] == 0:
		return packet{}, dropMultiplier
	case b[1]&flagMultipoint != 0:
		return packet{}, dropMultipoint
	}
	p := packet{
		diagnostic:     Diagnostic(b[0] & 0x1f),
		state:          State(b[1] >> 6),
		poll:           b[1]&flagPoll != 0,
		final:          b[1]&flagFinal != 0,
		demand:         b[1]&flagDemand != 0,
		multiplier:     b[2],
		mine:           binary.BigEndian.Uint32(b[4:]),
		yours:          binary.BigEndian.Uint32(b[8:]),
		desiredTx:      interval(b[12:]),
		requiredRx:     interval(b[16:]),
		requiredEchoRx: interval(b[20:]),
	}
	switch {
	case p.mine == 0:
		return p, dropDiscriminator
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		return p, dropState
	case b[1]&flagAuthentication != 0: // bfd.AuthType is always zero
		return p, dropAuthentication
	}
	return p, ""
}

func interval(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

// append appends the packet as it goes over the wire.
func (p packet) append(b []byte) []byte {
	flags := byte(p.state) << 6
	if p.poll {
		flags |= flagPoll
	}
	if p.final {
		flags |= flagFinal
	}
	if p.demand {
		flags |= flagDemand
	}
	b = append(b, version<<5|byte(p.diagnostic), flags, p.multiplier, packetLength)
	b = binary.BigEndian.AppendUint32(b, p.mine)
	b = binary.BigEndian.AppendUint32(b, p.yours)
	for _, d := range [...]time.Duration{p.desiredTx, p.requiredRx, p.requiredEchoRx} {
		b = binary.BigEndian.AppendUint32(b, uint32(d/time.Microsecond))
	}
	return b
}
