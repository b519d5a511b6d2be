package gobgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Of every message (RFC 4271, section 4.1).
const (
	headerLength = 19
	typeOffset   = 18
)

// Of an OPEN message (RFC 4271, section 4.2).
const (
	openASN        = headerLength + 1
	openHoldTime   = headerLength + 3
	openIdentifier = headerLength + 5
	openParameters = headerLength + 9 // their length
)

// Codes of capabilities.
const (
	capabilityMultiprotocol = 1  // RFC 4760
	capabilityNextHop       = 5  // RFC 8950
	capabilityRestart       = 64 // RFC 4724
	capabilityASN           = 65 // RFC 6793
)

// Subcodes of a Cease (RFC 4486).
const (
	ceaseShutdown      = 2
	ceaseDeconfigured  = 3
	ceaseReset         = 4
	ceaseConfiguration = 6
)

// maxCommunication is the longest text in a Cease (RFC 9003).
const maxCommunication = 255

var errLength = errors.New("a message of a length that can't be")

// readMessage reads a message, whole, into a new slice.
func readMessage(r io.Reader) ([]byte, error) {
	var header [headerLength]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(header[16:]))
	if length < headerLength {
		return header[:], errLength
	}
	m := make([]byte, length)
	copy(m, header[:])
	_, err := io.ReadFull(r, m[headerLength:])
	return m, err
}

func newMessage(kind uint8, body ...byte) []byte {
	m := slices.Repeat([]byte{0xff}, headerLength)
	binary.BigEndian.PutUint16(m[16:], uint16(headerLength+len(body)))
	m[typeOffset] = kind
	return append(m, body...)
}

func notification(code, subcode uint8, data ...byte) []byte {
	return newMessage(packet.BGP_MSG_NOTIFICATION, append([]byte{code, subcode}, data...)...)
}

// cease makes a NOTIFICATION that ends a session for no fault of the peer's. Only some subcodes go with a text.
func cease(subcode uint8, text string) []byte {
	if text == "" {
		return notification(packet.BGP_ERROR_CEASE, subcode)
	}
	text = strings.ToValidUTF8(text[:min(len(text), maxCommunication)], "")
	return notification(packet.BGP_ERROR_CEASE, subcode, append([]byte{byte(len(text))}, text...)...)
}

// describe says what a NOTIFICATION says.
func describe(m []byte) string {
	if len(m) < headerLength+2 {
		return "NOTIFICATION without a code"
	}
	code, subcode, data := m[headerLength], m[headerLength+1], m[headerLength+2:]
	text := fmt.Sprintf("NOTIFICATION %d/%d", code, subcode)
	if name := notificationName(code, subcode); name != "" {
		text += " (" + name + ")"
	}
	if code == packet.BGP_ERROR_CEASE && (subcode == ceaseShutdown || subcode == ceaseReset) && len(data) > 1 && len(data) > int(data[0]) {
		text += fmt.Sprintf(": %q", strings.ToValidUTF8(string(data[1:1+int(data[0])]), "?"))
	}
	return text
}

// subcodes are by code, from 1 on (RFC 4271, 4486, 5492, 7313, 8538, 9384).
var subcodes = map[uint8][]string{
	packet.BGP_ERROR_MESSAGE_HEADER_ERROR: {"connection not synchronized", "bad message length", "bad message type"},
	packet.BGP_ERROR_OPEN_MESSAGE_ERROR: {"unsupported version number", "bad peer AS", "bad BGP identifier", "unsupported optional parameter",
		"authentication failure", "unacceptable hold time", "unsupported capability"},
	packet.BGP_ERROR_UPDATE_MESSAGE_ERROR: {"malformed attribute list", "unrecognized well-known attribute", "missing well-known attribute",
		"attribute flags error", "attribute length error", "invalid ORIGIN attribute", "AS routing loop", "invalid NEXT_HOP attribute",
		"optional attribute error", "invalid network field", "malformed AS_PATH"},
	packet.BGP_ERROR_FSM_ERROR: {"unexpected message in OpenSent", "unexpected message in OpenConfirm", "unexpected message in Established"},
	packet.BGP_ERROR_CEASE: {"maximum number of prefixes reached", "administrative shutdown", "peer deconfigured", "administrative reset",
		"connection rejected", "other configuration change", "connection collision resolution", "out of resources", "hard reset", "BFD down"},
	packet.BGP_ERROR_ROUTE_REFRESH_MESSAGE_ERROR: {"invalid message length"},
}

func notificationName(code, subcode uint8) string {
	if code == packet.BGP_ERROR_HOLD_TIMER_EXPIRED {
		return "hold timer expired"
	}
	if names := subcodes[code]; subcode >= 1 && int(subcode) <= len(names) {
		return names[subcode-1]
	}
	return map[uint8]string{
		packet.BGP_ERROR_MESSAGE_HEADER_ERROR: "message header error", packet.BGP_ERROR_OPEN_MESSAGE_ERROR: "OPEN message error",
		packet.BGP_ERROR_UPDATE_MESSAGE_ERROR: "UPDATE message error", packet.BGP_ERROR_FSM_ERROR: "state machine error",
		packet.BGP_ERROR_CEASE: "cease",
	}[code]
}

// open is what matters here of a router's OPEN message.
type open struct {
	asn      uint32
	v4, v6   bool // the families that it wants to talk about
	extended bool // it takes IPv4 routes with IPv6 next hops
}

// readOpen does not judge: what it can't read, GoBGP will not be able to read either, and answer.
func readOpen(m []byte) open {
	var o open
	if len(m) <= openParameters {
		return o
	}
	o.asn = uint32(binary.BigEndian.Uint16(m[openASN:]))
	multiprotocol := false
	capabilities(m, func(code uint8, value []byte) {
		switch code {
		case capabilityMultiprotocol:
			multiprotocol = true
			if len(value) >= 4 && value[3] == 1 {
				o.v4 = o.v4 || value[1] == 1
				o.v6 = o.v6 || value[1] == 2
			}
		case capabilityNextHop:
			for ; len(value) >= 6; value = value[6:] {
				o.extended = o.extended || value[1] == 1 && value[3] == 1 && value[5] == 2
			}
		case capabilityASN:
			if len(value) >= 4 {
				o.asn = binary.BigEndian.Uint32(value)
			}
		}
	})
	o.v4 = o.v4 || !multiprotocol
	return o
}

// amendOpen makes GoBGP's OPEN message ours: see the package's comment.
func amendOpen(m []byte, routerID netip.Addr, noHoldTime bool) {
	if len(m) <= openParameters {
		return
	}
	id := routerID.As4()
	copy(m[openIdentifier:], id[:])
	if noHoldTime {
		clearHoldTime(m)
	}
	capabilities(m, func(code uint8, value []byte) {
		if code != capabilityRestart || len(value) < 2 {
			return
		}
		// We do forward while nobody speaks BGP, and the peer need not wait for our End-of-RIB.
		value[0] |= 0x80
		for tuple := value[2:]; len(tuple) >= 4; tuple = tuple[4:] {
			tuple[3] |= 0x80
		}
	})
}

// clearHoldTime makes of an OPEN message's hold time 0, which says that there is to be none.
func clearHoldTime(m []byte) {
	if len(m) > openParameters {
		m[openHoldTime], m[openHoldTime+1] = 0, 0
	}
}

// holdTime returns an OPEN message's hold time.
func holdTime(m []byte) time.Duration {
	if len(m) <= openParameters {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint16(m[openHoldTime:])) * time.Second
}

// capabilities calls f with each capability (RFC 5492) of an OPEN message. Values may be changed in place.
func capabilities(m []byte, f func(code uint8, value []byte)) {
	parameters, lengths := m[openParameters+1:], 1
	if len(parameters) >= 3 && m[openParameters] == 255 && parameters[0] == 255 {
		parameters, lengths = parameters[3:], 2 // RFC 9072
	}
	for len(parameters) > lengths {
		kind, n := parameters[0], int(parameters[1])
		if lengths == 2 {
			n = int(binary.BigEndian.Uint16(parameters[1:]))
		}
		parameters = parameters[1+lengths:]
		if n > len(parameters) {
			return
		}
		body := parameters[:n]
		parameters = parameters[n:]
		for kind == 2 && len(body) >= 2 && len(body) >= 2+int(body[1]) {
			f(body[0], body[2:2+int(body[1])])
			body = body[2+int(body[1]):]
		}
	}
}
