package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// attempts to read a table that changes too fast to be read whole. What was read is acted upon each time, so the last may fall short too.
const attempts = 3

// Clean deletes the stale entries of this network namespace, and returns how many there were; see Stale. It is to be called after the rules
// are in the kernel: an entry deleted earlier would come back as it was.
func Clean(s *Services, open func(netip.Addr) bool) (deleted int, err error) {
	for _, family := range []dataplane.Family{dataplane.IPv4, dataplane.IPv6} {
		if !s.has(family) {
			continue
		}
		n, ferr := clean(family, func(e Entry) bool { return s.Stale(e, open) })
		deleted += n
		if ferr != nil {
			err = errors.Join(err, fmt.Errorf("IPv%d connection table: %w", family, ferr))
		}
	}
	return deleted, err
}

func clean(family dataplane.Family, isStale func(Entry) bool) (deleted int, err error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open netlink: %w", err)
	}
	defer socket.Close()
	for _, set := range []func(*unix.Timeval) error{socket.SetSendTimeout, socket.SetReceiveTimeout} {
		if err := set(&nl.SocketTimeoutTv); err != nil {
			return 0, fmt.Errorf("set netlink's time limit: %w", err)
		}
	}
	sockets := map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	request := func(operation, flags int) *nl.NetlinkRequest {
		r := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|operation, flags)
		r.Sockets = sockets
		r.AddData(&nl.Nfgenmsg{NfgenFamily: afOf(family), Version: nl.NFNETLINK_V0})
		return r
	}
	for range attempts {
		// A message is handed over while the table is being read, so that a large table is never in memory; only stale entries are kept.
		var stale [][]byte
		err = request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
			if e, ok := parse(msg); ok && isStale(e) {
				stale = append(stale, slices.Clone(msg[nl.SizeofNfgenmsg:]))
			}
			return true
		})
		for _, msg := range stale {
			// The message names the flow, its zone, and the entry's id: an entry that has taken its place since is not deleted.
			r := request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
			r.AddRawData(msg)
			switch _, derr := r.Execute(unix.NETLINK_NETFILTER, 0); {
			case derr == nil:
				deleted++
			case !errors.Is(derr, unix.ENOENT): // it has expired
				return deleted, fmt.Errorf("delete an entry: %w", derr)
			}
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return deleted, fmt.Errorf("read: %w", err)
	}
	return deleted, nil
}

func afOf(family dataplane.Family) uint8 {
	if family == dataplane.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// parse reads a ctnetlink message, and returns false for what is not a UDP flow.
func parse(msg []byte) (Entry, bool) {
	if len(msg) < nl.SizeofNfgenmsg {
		return Entry{}, false
	}
	var orig, reply tuple
	for typ, value := range attributes(msg[nl.SizeofNfgenmsg:]) {
		switch typ {
		case nl.CTA_TUPLE_ORIG:
			orig = parseTuple(value)
		case nl.CTA_TUPLE_REPLY:
			reply = parseTuple(value)
		}
	}
	if orig.protocol != unix.IPPROTO_UDP || !orig.dst.IsValid() || !reply.src.IsValid() {
		return Entry{}, false
	}
	return Entry{Dst: netip.AddrPortFrom(orig.dst, orig.dstPort), Server: netip.AddrPortFrom(reply.src, reply.srcPort)}, true
}

type tuple struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	protocol         uint8
}

func parseTuple(msg []byte) (t tuple) {
	for typ, nested := range attributes(msg) {
		for field, value := range attributes(nested) {
			switch {
			case typ == nl.CTA_TUPLE_IP && (field == nl.CTA_IP_V4_SRC || field == nl.CTA_IP_V6_SRC):
				t.src, _ = netip.AddrFromSlice(value)
			case typ == nl.CTA_TUPLE_IP && (field == nl.CTA_IP_V4_DST || field == nl.CTA_IP_V6_DST):
				t.dst, _ = netip.AddrFromSlice(value)
			case typ == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_NUM && len(value) > 0:
				t.protocol = value[0]
			case typ == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_SRC_PORT && len(value) > 1:
				t.srcPort = binary.BigEndian.Uint16(value)
			case typ == nl.CTA_TUPLE_PROTO && field == nl.CTA_PROTO_DST_PORT && len(value) > 1:
				t.dstPort = binary.BigEndian.Uint16(value)
			}
		}
	}
	return t
}

// attributes are the types and values of the netlink attributes in msg, up to the first that is cut off.
func attributes(msg []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(msg) >= nl.SizeofNfattr {
			size := int(binary.NativeEndian.Uint16(msg))
			if size < nl.SizeofNfattr || size > len(msg) {
				return
			}
			typ := binary.NativeEndian.Uint16(msg[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(int(typ), msg[nl.SizeofNfattr:size]) {
				return
			}
			msg = msg[min(len(msg), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}
