package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// trace keeps the last packets that a host saw on its interfaces, to be shown when a scenario fails.
type trace struct {
	host  *host
	file  *os.File
	mu    sync.Mutex
	next  int
	packs [400]seen
}

type seen struct {
	when time.Time
	link int
	out  bool
	data []byte
}

func startTrace(h *host) (*trace, error) {
	t := &trace{host: h}
	err := h.do(func() error {
		every := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(every))
		if err != nil {
			return err
		}
		t.file = os.NewFile(uintptr(fd), "trace of "+h.name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("trace of %s: %w", h.name, err)
	}
	go t.read()
	return t, nil
}

func (t *trace) read() {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 96)
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return // closed
		}
		sll, ok := from.(*unix.SockaddrLinklayer)
		if failed != nil || !ok {
			continue
		}
		t.mu.Lock()
		p := &t.packs[t.next%len(t.packs)]
		t.next++
		p.when, p.link, p.out, p.data = time.Now(), sll.Ifindex, sll.Pkttype == unix.PACKET_OUTGOING, append(p.data[:0], buf[:n]...)
		t.mu.Unlock()
	}
}

func (t *trace) String() string {
	names := map[int]string{}
	if links, err := t.host.links.LinkList(); err == nil {
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for i := max(0, t.next-len(t.packs)); i < t.next; i++ {
		p := t.packs[i%len(t.packs)]
		direction := "in "
		if p.out {
			direction = "out"
		}
		if line := describe(p.data); line != "" {
			fmt.Fprintf(&b, "%s %s %-8s %s %s\n", p.when.Format("05.000000"), t.host.name, names[p.link], direction, line)
		}
	}
	return b.String()
}

// describe says what is in an IP packet; what is not part of a scenario, such as neighbour discovery, is left out.
func describe(p []byte) string {
	var src, dst netip.Addr
	var proto byte
	var rest []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		src, dst, proto = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[9]
		rest = p[min(len(p), int(p[0]&15)*4):]
	case len(p) >= 40 && p[0]>>4 == 6:
		src, dst, proto, rest = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[6], p[40:]
	default:
		return ""
	}
	if len(rest) < 8 {
		return fmt.Sprintf("%s > %s protocol %d", src, dst, proto)
	}
	from := netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
	to := netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
	switch {
	case proto == unix.IPPROTO_TCP && len(rest) >= 14:
		flags := ""
		for i, f := range "FSRPA" {
			if rest[13]&(1<<i) != 0 {
				flags += string(f)
			}
		}
		return fmt.Sprintf("%s > %s tcp %s", from, to, flags)
	case proto == unix.IPPROTO_UDP:
		return fmt.Sprintf("%s > %s udp", from, to)
	case proto == unix.IPPROTO_SCTP:
		return fmt.Sprintf("%s > %s sctp", from, to)
	case proto == unix.IPPROTO_ICMPV6 && rest[0] >= 128:
		return ""
	}
	return fmt.Sprintf("%s > %s protocol %d type %d code %d", src, dst, proto, rest[0], rest[1])
}

// dump says everything about a world that can tell why a scenario failed.
func (w *world) dump(traces []*trace) string {
	var b strings.Builder
	for _, name := range nodes {
		h := w.hosts[name]
		for _, args := range [][]string{
			{"ip", "-brief", "address"}, {"ip", "route"}, {"iptables-save"}, {"ip6tables-save"}, {"nft", "list", "ruleset"},
			{"conntrack", "-L"}, {"conntrack", "-L", "-f", "ipv6"},
		} {
			out, err := h.run(args...)
			if err != nil {
				out += err.Error()
			}
			if lines := strings.Split(out, "\n"); len(lines) > 400 {
				out = strings.Join(lines[:400], "\n") + "\n... and more"
			}
			fmt.Fprintf(&b, "--- %s: %s\n%s\n", name, strings.Join(args, " "), out)
		}
	}
	for _, t := range traces {
		fmt.Fprintf(&b, "--- %s: last packets\n%s\n", t.host.name, t)
	}
	return b.String()
}
