package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"time"
)

// SCTP as far as the first answer (RFC 9260, 5.1): kernels without SCTP sockets track it all the same, so raw packets do.

const (
	sctpInit    = 1
	sctpInitAck = 2
)

// initiation is an INIT or INIT ACK with a cookie, ready to be sent.
func initiation(kind byte, from, to uint16, verification, tag uint32, cookie string) []byte {
	p := make([]byte, 12+20)
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	binary.BigEndian.PutUint32(p[4:], verification)
	p[12] = kind
	binary.BigEndian.PutUint32(p[16:], tag)
	binary.BigEndian.PutUint32(p[20:], 65536) // window
	binary.BigEndian.PutUint16(p[24:], 1)     // streams, each way
	binary.BigEndian.PutUint16(p[26:], 1)
	if cookie != "" {
		p = binary.BigEndian.AppendUint16(p, 7)
		p = binary.BigEndian.AppendUint16(p, uint16(4+len(cookie)))
		p = append(p, cookie...)
	}
	binary.BigEndian.PutUint16(p[14:], uint16(len(p)-12))
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

func (s *scenario) sctpSocket(host string) net.PacketConn {
	s.Helper()
	var c net.PacketConn
	s.must(s.hosts[host].do(func() (err error) {
		c, err = net.ListenPacket(s.text("ip4:132", "ip6:132"), s.text("0.0.0.0", "::"))
		return err
	}))
	s.Cleanup(func() { c.Close() })
	return c
}

// serveSCTP has a pod answer each INIT with its name in the cookie.
func serveSCTP(s *scenario, pod string, port uint16) {
	s.Helper()
	c := s.sctpSocket(pod)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			p := buf[:n]
			if n < 32 || p[12] != sctpInit || binary.BigEndian.Uint16(p[2:]) != port {
				continue
			}
			tag := binary.BigEndian.Uint32(p[16:])
			_, _ = c.WriteTo(initiation(sctpInitAck, port, binary.BigEndian.Uint16(p), tag, 4711, pod), from)
		}
	}()
}

// askSCTP checks which pod answers an INIT.
func askSCTP(s *scenario, from string, to netip.AddrPort, by string) {
	s.Helper()
	c := s.sctpSocket(from)
	const own = 40000
	buf := make([]byte, 1500)
	s.eventually(fmt.Sprintf("%s gets an INIT ACK from %s", from, to), func() error {
		if _, err := c.WriteTo(initiation(sctpInit, own, to.Port(), 0, 815, ""), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		p := buf[:n]
		if n < 36 || p[12] != sctpInitAck || peer.String() != to.Addr().String() {
			return errors.New("a strange packet from " + peer.String())
		}
		if cookie := string(p[36:min(n, 36+int(binary.BigEndian.Uint16(p[34:]))-4)]); cookie != by {
			return fmt.Errorf("an answer of %s", cookie)
		}
		return nil
	})
}
