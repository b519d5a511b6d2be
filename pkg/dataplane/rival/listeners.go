package rival

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature is the value of the Server header in the answers of our own health server, by which it is told from another proxy's on the
// same ports, whichever of our processes looks.
const Signature = "steelyard"

// The ports of proxies, none of which is registered for anything else.
const (
	metricsPort = 10249 // kube-proxy's metricsBindAddress: /proxyMode
	healthzPort = 10256 // kube-proxy's healthzBindAddress, which other proxies took over as cloud load balancers ask there
	ciliumPort  = 9879  // cilium-agent's health check
)

// listener is a socket that listens on one of the ports, and what it answers.
type listener struct {
	addr    netip.AddrPort
	mode    string // what kube-proxy says on /proxyMode
	healthz bool   // the answer has the form of kube-proxy's /healthz
}

// listeners are those of other proxies on this node, and whatever else has one of their ports.
func listeners(ctx context.Context) ([]listener, error) {
	var found []listener
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("looking for other proxies' listeners: %w", err)
		}
		addrs, err := parseListeners(file)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("looking for other proxies' listeners: %s: %w", path, err)
		}
		for _, addr := range addrs {
			if l, ours := ask(ctx, addr); !ours {
				found = append(found, l)
			}
		}
	}
	return found, nil
}

// parseListeners reads the addresses with one of the proxies' ports from /proc/net/tcp or tcp6: per line, after a running number, the
// local address in hexadecimal as words in the machine's byte order, then a colon and the port. Listening sockets come first there, so
// the many others of a busy node are not read.
func parseListeners(r io.Reader) ([]netip.AddrPort, error) {
	const listening = "0A" // TCP_LISTEN
	var addrs []netip.AddrPort
	lines := bufio.NewScanner(r)
	lines.Scan() // the headings
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			return nil, fmt.Errorf("a line of %d fields, not at least 4: %q", len(fields), lines.Text())
		}
		if fields[3] != listening {
			break
		}
		host, port, _ := strings.Cut(fields[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("the port of %q: %w", fields[1], err)
		}
		if !slices.Contains([]uint64{metricsPort, healthzPort, ciliumPort}, n) {
			continue
		}
		raw, err := hex.DecodeString(host)
		if err != nil || len(raw)%4 != 0 {
			return nil, fmt.Errorf("the address of %q is not in words of 32 bits", fields[1])
		}
		for word := range slices.Chunk(raw, 4) {
			slices.Reverse(word) // Steelyard runs on little-endian machines only
		}
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return nil, fmt.Errorf("the address of %q is neither IPv4 nor IPv6", fields[1])
		}
		addrs = append(addrs, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
	}
	return addrs, lines.Err()
}

// ask finds out who listens. A listener that does not answer as a proxy does is none.
func ask(ctx context.Context, addr netip.AddrPort) (l listener, ours bool) {
	l.addr = addr
	if addr.Port() == ciliumPort {
		return l, false // its answer has nothing that only Cilium would say
	}
	to := addr
	switch addr.Addr() {
	case netip.IPv4Unspecified():
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	case netip.IPv6Unspecified():
		to = netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	}
	path := "/healthz"
	if addr.Port() == metricsPort {
		path = "/proxyMode"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+to.String()+path, nil)
	if err != nil {
		return l, false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy from the environment
	answer, err := client.Do(request)
	if err != nil {
		return l, false
	}
	defer answer.Body.Close()
	if answer.Header.Get("Server") == Signature {
		return l, true
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return l, false
	}
	if path == "/proxyMode" {
		if mode := strings.TrimSpace(string(body)); slices.Contains([]string{"iptables", "nftables", "ipvs"}, mode) {
			l.mode = mode
		}
		return l, false
	}
	// An unhealthy proxy says the same with status 503, and is alive.
	var health struct {
		LastUpdated, CurrentTime *string
	}
	l.healthz = json.Unmarshal(body, &health) == nil && health.LastUpdated != nil && health.CurrentTime != nil
	return l, false
}
