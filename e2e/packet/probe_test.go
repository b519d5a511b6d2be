package packet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long a client waits: for an answer, which comes at once unless the machine is very busy, and for the silence of a dropped packet, which
// TCP asks about again after a second.
const (
	patience = 30 * time.Second
	silence  = 1300 * time.Millisecond
)

// outcome is what became of one attempt.
type outcome struct {
	answer
	err  error
	lost bool // the first SYN, or its answer, was lost
}

// refused is what a rejected packet leads to: port unreachable or a reset, and no permission to send where the sender's own kernel rejected it.
func (o outcome) refused() bool {
	return errors.Is(o.err, syscall.ECONNREFUSED) || errors.Is(o.err, syscall.EPERM)
}

func (o outcome) silent() bool {
	return errors.Is(o.err, os.ErrDeadlineExceeded) || errors.Is(o.err, context.DeadlineExceeded) || isTimeout(o.err)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func (o outcome) String() string {
	switch {
	case o.refused():
		return "refused"
	case o.silent():
		return "silence"
	case o.err != nil:
		return "error " + o.err.Error()
	}
	return fmt.Sprintf("answer of %s:%d to %s", o.by, o.port, o.saw)
}

// dialer opens sockets from an address, or from any if it is the zero AddrPort.
func dialer(network string, from netip.AddrPort, wait time.Duration) net.Dialer {
	d := net.Dialer{Timeout: wait, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			// The client has whole networks of addresses, of which no interface has any.
			failed = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		})
		return errors.Join(err, failed)
	}}
	if from.IsValid() {
		if strings.HasPrefix(network, "tcp") {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		} else {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	return d
}

// dial connects from the host.
func (h *host) dial(network string, from, to netip.AddrPort, wait time.Duration) (c net.Conn, err error) {
	err = h.do(func() error {
		d := dialer(network, from, wait)
		c, err = d.Dial(network, to.String())
		return err
	})
	return c, err
}

// tcp makes one connection, from an address of the host or from the one that it chooses.
func (h *host) tcp(from netip.Addr, to netip.AddrPort, wait time.Duration) outcome {
	c, err := h.dial("tcp", port(from, 0), to, wait)
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	// A reset instead of TIME_WAIT: thousands of probes must not use up the ports.
	_ = c.(*net.TCPConn).SetLinger(0)
	o := greeted(c, wait)
	o.lost = retransmitted(c)
	return o
}

// greeted reads the greeting of an echo server.
func greeted(c net.Conn, wait time.Duration) (o outcome) {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return outcome{err: err}
	}
	o.answer, o.err = parseAnswer(line)
	return o
}

func retransmitted(c net.Conn) (lost bool) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		lost = err == nil && info.Total_retrans > 0
	})
	return lost
}

// udp asks with datagrams of a size, every 200 ms until there is an answer.
func (h *host) udp(from, to netip.AddrPort, size int, wait time.Duration) outcome {
	c, err := h.dial("udp", from, to, wait)
	if err != nil {
		return outcome{err: err}
	}
	defer c.Close()
	return ask(c, size, wait)
}

// ask sends a datagram until there is an answer.
func ask(c net.Conn, size int, wait time.Duration) (o outcome) {
	buf := make([]byte, 65535)
	for end := time.Now().Add(wait); ; {
		if _, err := c.Write(make([]byte, size)); err != nil {
			return outcome{err: err}
		}
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Read(buf)
		switch {
		case err == nil:
			if n < size {
				return outcome{err: fmt.Errorf("a datagram of %d bytes got an answer of %d", size, n)}
			}
			line, _, _ := strings.Cut(string(buf[:n]), "\n")
			o.answer, o.err = parseAnswer(line)
			return o
		case !isTimeout(err) || time.Now().After(end):
			return outcome{err: err}
		}
	}
}

// stream is one TCP connection that stays open.
type stream struct {
	answer
	conn  net.Conn
	lines *bufio.Reader
}

func (h *host) stream(to netip.AddrPort) (*stream, error) {
	c, err := h.dial("tcp", netip.AddrPort{}, to, patience)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: c, lines: bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := s.lines.ReadString('\n')
	if err == nil {
		s.answer, err = parseAnswer(line)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// alive says something on the connection and waits until it comes back.
func (s *stream) alive() error {
	_ = s.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(s.conn, "hello"); err != nil {
		return err
	}
	if line, err := s.lines.ReadString('\n'); err != nil || line != "hello\n" {
		return fmt.Errorf("got %q back: %v", line, err)
	}
	return nil
}

// download gets a number of bytes.
func (s *stream) download(size int) error {
	_ = s.conn.SetDeadline(time.Now().Add(3 * patience))
	if _, err := fmt.Fprintf(s.conn, "get %d\n", size); err != nil {
		return err
	}
	for got := 0; got < size; {
		n, err := s.lines.Discard(min(size-got, 4096))
		got += n
		if err != nil {
			return fmt.Errorf("%d of %d bytes came: %w", got, size, err)
		}
	}
	return nil
}

// watch makes one connection after the other until it is stopped.
type watch struct {
	done chan struct{}
	once sync.Once
	ends chan struct{}

	mu    sync.Mutex
	count int
	bad   []string
}

// watchTCP makes connections with a pause between them; good says which outcomes are as they should be.
func (h *host) watchTCP(to netip.AddrPort, pause time.Duration, good func(outcome) bool) *watch {
	w := &watch{done: make(chan struct{}), ends: make(chan struct{})}
	go func() {
		defer close(w.ends)
		for start := time.Now(); ; {
			select {
			case <-w.done:
				return
			case <-time.After(pause):
			}
			o := h.tcp(netip.Addr{}, to, patience)
			w.mu.Lock()
			w.count++
			if !good(o) || o.lost {
				w.bad = append(w.bad, fmt.Sprintf("after %s: %s, lost packet: %t", time.Since(start).Round(time.Millisecond), o, o.lost))
			}
			w.mu.Unlock()
		}
	}()
	return w
}

// tried returns how many connections there were.
func (w *watch) tried() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// stop ends the watch and returns what went wrong.
func (w *watch) stop() []string {
	w.once.Do(func() { close(w.done) })
	<-w.ends
	return w.bad
}

// port is an address with a port; the zero AddrPort for the zero Addr.
func port(a netip.Addr, p uint16) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, p)
}

// page is what an HTTP server answered.
type page struct {
	*http.Response
	body string
}

// get asks an HTTP server.
func (s *scenario) get(from string, to target, path string) (page, error) {
	c, err := s.hosts[from].dial("tcp", netip.AddrPort{}, to.AddrPort, patience)
	if err != nil {
		return page{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, to.AddrPort); err != nil {
		return page{}, err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return page{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return page{r, string(body)}, err
}
