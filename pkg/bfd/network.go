package bfd

import "net/netip"

// network carries packets: the kernel's sockets or, in tests, a simulation. Its methods are called by the goroutine that is in Run.
type network interface {
	// listen receives packets at exactly these endpoints, and tells which of them it can't, and why. It is idempotent.
	listen(map[endpoint]bool) map[endpoint]error
	// open returns a way to a session's peer, from this port or, if that is not free, from another.
	open(s Session, local netip.Addr, port uint16) (path, error)
	// drain passes on what has come to the endpoints and was not yet put in the inbox.
	drain(func(*received))
	// close ends all that listen began.
	close()
}

// path is a way to a peer.
type path interface {
	// send sends a packet. It does not keep it.
	send([]byte) error
	// source returns the address and port that packets are sent from.
	source() netip.AddrPort
	close()
}

// endpoint is where packets come in: a family, a port, and a device.
type endpoint struct {
	v6, multihop bool
	device       string // "" for all that no other endpoint is for
}

func (k key) endpoint() endpoint {
	return endpoint{v6: k.peer.Is6(), multihop: k.multihop, device: k.device}
}

// received is a packet that came in. If drop is not empty, it has to be dropped for that.
type received struct {
	endpoint
	peer, local netip.Addr // without zones
	ttl         uint8
	packet      packet
	drop        drop
}

// arrived examines a UDP payload.
func arrived(e endpoint, peer, local netip.Addr, ttl uint8, payload []byte) received {
	r := received{endpoint: e, peer: peer, local: local, ttl: ttl}
	// A router takes one off the TTL of what it forwards: nobody who is not on our network can make it arrive as 255 (RFC 5881, section 5).
	if !e.multihop && ttl != 255 {
		r.drop = dropTTL
		return r
	}
	r.packet, r.drop = parse(payload)
	return r
}
