// Package health answers those who ask whether this node serves: load balancers that probe a Service's healthCheckNodePort, and whoever
// looks at /healthz, /livez and /proxyMode. The answers are kube-proxy's, so that nobody has to be taught new ones.
package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// Checks are the servers at the healthCheckNodePorts. Sync and Close are for one goroutine.
type Checks struct {
	healthy   func() bool
	server    *http.Server
	listeners map[netip.AddrPort]net.Listener

	mu     sync.Mutex
	checks map[uint16]check
}

type check struct {
	service string
	local   int
}

// NewChecks returns Checks without a port. healthy tells whether the node's rules are up to date; it is called for each answer.
func NewChecks(healthy func() bool, log *slog.Logger) *Checks {
	c := &Checks{healthy: healthy, listeners: map[netip.AddrPort]net.Listener{}, checks: map[uint16]check{}}
	c.server = &http.Server{
		Handler: http.HandlerFunc(c.answer), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	// A prober that kept its connection would not notice that the port was closed.
	c.server.SetKeepAlivesEnabled(false)
	return c
}

// Failure is a port that could not be opened.
type Failure struct {
	Service string
	Err     error
}

// Sync opens and closes ports until those of the checks (by Service) are open, and no others, at the given addresses; nil means all
// addresses. It returns what failed; all the rest is done. Failed ports are tried again at the next call.
func (c *Checks) Sync(checks map[string]dataplane.HealthCheck, addrs []netip.Addr) []Failure {
	if addrs == nil {
		addrs = []netip.Addr{{}}
	}
	want := map[netip.AddrPort]string{}
	byPort := make(map[uint16]check, len(checks))
	for service, h := range checks {
		byPort[h.Port] = check{service, h.Local}
		for _, a := range addrs {
			want[netip.AddrPortFrom(a, h.Port)] = service
		}
	}
	c.mu.Lock()
	c.checks = byPort
	c.mu.Unlock()

	for at, l := range c.listeners { // before any is opened: 0.0.0.0 is in the way of 192.0.2.1
		if _, ok := want[at]; !ok {
			l.Close()
			delete(c.listeners, at)
		}
	}
	var failures []Failure
	for at, service := range want {
		if c.listeners[at] != nil {
			continue
		}
		host := ""
		if at.Addr().IsValid() {
			host = at.Addr().String()
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(at.Port()))))
		if err != nil {
			failures = append(failures, Failure{service, fmt.Errorf("open healthCheckNodePort %d: %w; see what has it with: ss -ltnp sport = :%d", at.Port(), err, at.Port())})
			continue
		}
		c.listeners[at] = l
		go c.server.Serve(l) // ends when the listener is closed
	}
	slices.SortFunc(failures, func(a, b Failure) int { return strings.Compare(a.Service, b.Service) })
	return failures
}

// Close closes all ports, and cuts off those who wait for an answer. The Checks can't be used afterwards.
func (c *Checks) Close() error {
	c.Sync(nil, nil)
	if err := c.server.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (c *Checks) answer(w http.ResponseWriter, r *http.Request) {
	at := r.Context().Value(http.LocalAddrContextKey).(net.Addr).(*net.TCPAddr)
	c.mu.Lock()
	check, ok := c.checks[uint16(at.Port)]
	c.mu.Unlock()
	if !ok {
		http.Error(w, "this port is being closed", http.StatusServiceUnavailable)
		return
	}
	healthy := c.healthy()
	var body struct {
		Service struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		LocalEndpoints      int  `json:"localEndpoints"`
		ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
	}
	body.Service.Namespace, body.Service.Name, _ = strings.Cut(check.service, "/")
	body.LocalEndpoints, body.ServiceProxyHealthy = check.local, healthy
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(check.local))
	reply(w, healthy && check.local > 0, body)
}

func reply(w http.ResponseWriter, ok bool, body any) int {
	code := http.StatusOK
	if !ok {
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) // fails only if the client has gone
	return code
}
