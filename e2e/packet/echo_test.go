package packet

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// echo is a server in a pod. To every TCP connection it says who it is and whom it sees, then repeats each line; "get N" gets N bytes.
// A datagram's answer says the same and is as long as the question.
type echo struct {
	name      string
	listeners []io.Closer
	received  atomic.Int64 // datagrams

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// serve opens the ports, TCP and UDP, in both families.
func serve(h *host, ports ...uint16) (*echo, error) {
	e := &echo{name: h.name, conns: map[net.Conn]bool{}}
	err := h.do(func() error {
		for _, port := range ports {
			address := fmt.Sprintf("[::]:%d", port)
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			e.listeners = append(e.listeners, l)
			go e.accept(l)
			for _, family := range []string{"udp4", "udp6"} {
				c, err := net.ListenPacket(family, fmt.Sprintf(":%d", port))
				if err != nil {
					return err
				}
				e.listeners = append(e.listeners, c)
				go e.answerDatagrams(c)
			}
		}
		return nil
	})
	if err != nil {
		e.close()
		return nil, fmt.Errorf("echo server of %s: %w", h.name, err)
	}
	return e, nil
}

func (e *echo) close() {
	for _, l := range e.listeners {
		l.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
}

func (e *echo) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		e.mu.Lock()
		if e.conns == nil {
			c.Close()
		} else {
			e.conns[c] = true
		}
		e.mu.Unlock()
		go e.answer(c)
	}
}

func (e *echo) answer(c net.Conn) {
	defer func() {
		c.Close()
		e.mu.Lock()
		delete(e.conns, c)
		e.mu.Unlock()
	}()
	fmt.Fprintln(c, e.greeting(c.LocalAddr(), c.RemoteAddr()))
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		line := lines.Text()
		if size, ok := strings.CutPrefix(line, "get "); ok {
			n, _ := strconv.Atoi(size)
			if _, err := c.Write(make([]byte, n)); err != nil {
				return
			}
			continue
		}
		if _, err := fmt.Fprintln(c, line); err != nil {
			return
		}
	}
}

func (e *echo) answerDatagrams(c net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		e.received.Add(1)
		answer := e.greeting(c.LocalAddr(), from) + "\n"
		if pad := n - len(answer); pad > 0 {
			answer += strings.Repeat("x", pad)
		}
		_, _ = c.WriteTo([]byte(answer), from)
	}
}

func (e *echo) greeting(local, remote net.Addr) string {
	_, port, _ := net.SplitHostPort(local.String())
	return e.name + " " + port + " " + remote.String()
}

// answer is what an echo server said.
type answer struct {
	by   string         // the server's host
	port uint16         // of the server
	saw  netip.AddrPort // the client, as the server sees it
}

func parseAnswer(line string) (answer, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return answer{}, fmt.Errorf("%q is not an echo server's greeting", line)
	}
	port, err := strconv.ParseUint(fields[1], 10, 16)
	if err != nil {
		return answer{}, err
	}
	saw, err := netip.ParseAddrPort(fields[2])
	if err != nil {
		return answer{}, err
	}
	return answer{by: fields[0], port: uint16(port), saw: netip.AddrPortFrom(saw.Addr().Unmap(), saw.Port())}, nil
}
