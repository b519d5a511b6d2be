package health

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// enter puts the test into a network namespace of its own, where all ports are free, with the address 192.0.2.1.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare (this test needs root): %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// get asks an address; 0 means that nobody listens there. http.Client would dial on another thread, in another namespace.
func get(t *testing.T, address string) (code int, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, nil, ""
	}
	defer conn.Close()
	request, _ := http.NewRequest(http.MethodGet, "http://"+address+"/any/path", nil)
	if err := request.Write(conn); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

func newTestChecks(t *testing.T, healthy *atomic.Bool) *Checks {
	c := NewChecks(healthy.Load, slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func TestAnswers(t *testing.T) {
	enter(t)
	var healthy atomic.Bool
	c := newTestChecks(t, &healthy)
	for name, test := range map[string]struct {
		local   int
		healthy bool
		code    int
		weight  string
		body    string
	}{
		"no endpoint":   {0, true, 503, "0", `{"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}`},
		"one endpoint":  {1, true, 200, "1", `{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}`},
		"two endpoints": {2, true, 200, "2", `{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}`},
		"rules too old": {2, false, 503, "2", `{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":false}`},
	} {
		// Not in subtests: they would run on other threads.
		healthy.Store(test.healthy)
		if failures := c.Sync(map[string]dataplane.HealthCheck{"default/web": {Port: 30999, Local: test.local}}, nil); failures != nil {
			t.Fatal(failures)
		}
		for _, address := range []string{"127.0.0.1:30999", "[::1]:30999"} {
			code, header, body := get(t, address)
			if code != test.code || strings.TrimSpace(body) != test.body {
				t.Errorf("%s: %s answers %d %s", name, address, code, body)
			}
			for key, want := range map[string]string{"X-Load-Balancing-Endpoint-Weight": test.weight, "Content-Type": "application/json", "X-Content-Type-Options": "nosniff"} {
				if got := header.Get(key); got != want {
					t.Errorf("%s: %s: %s is %q", name, address, key, got)
				}
			}
		}
	}
}

func TestPortsOpenAndClose(t *testing.T) {
	enter(t)
	var healthy atomic.Bool
	healthy.Store(true)
	c := newTestChecks(t, &healthy)
	expect := func(what string, addresses ...string) {
		t.Helper()
		for _, address := range []string{"127.0.0.1:30001", "192.0.2.1:30001", "192.0.2.1:30002"} {
			code, _, _ := get(t, address)
			want := 0
			for _, a := range addresses {
				if a == address {
					want = 200
				}
			}
			if code != want {
				t.Errorf("%s: %s answers %d", what, address, code)
			}
		}
	}
	one := map[string]dataplane.HealthCheck{"default/web": {Port: 30001, Local: 1}}
	only := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	sync := func(checks map[string]dataplane.HealthCheck, addrs []netip.Addr) {
		t.Helper()
		if failures := c.Sync(checks, addrs); failures != nil {
			t.Fatal(failures)
		}
	}
	sync(one, nil)
	expect("everywhere", "127.0.0.1:30001", "192.0.2.1:30001")
	sync(one, only)
	expect("at one address", "192.0.2.1:30001")
	sync(map[string]dataplane.HealthCheck{"default/web": {Port: 30002, Local: 1}}, only)
	expect("at another port", "192.0.2.1:30002")
	sync(one, []netip.Addr{})
	expect("at no address")
	sync(nil, nil)
	expect("none")
}

func TestTakenPort(t *testing.T) {
	enter(t)
	l, err := net.Listen("tcp", ":30001")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var healthy atomic.Bool
	healthy.Store(true)
	c := newTestChecks(t, &healthy)
	checks := map[string]dataplane.HealthCheck{"default/web": {Port: 30001, Local: 1}, "default/other": {Port: 30002, Local: 1}}
	failures := c.Sync(checks, nil)
	if len(failures) != 1 || failures[0].Service != "default/web" || !strings.Contains(failures[0].Err.Error(), "30001") {
		t.Errorf("failures: %v", failures)
	}
	if code, _, _ := get(t, "127.0.0.1:30002"); code != 200 {
		t.Errorf("the other Service's port answers %d", code)
	}
	l.Close()
	if failures := c.Sync(checks, nil); failures != nil {
		t.Errorf("failures: %v", failures)
	}
	if code, _, _ := get(t, "127.0.0.1:30001"); code != 200 {
		t.Errorf("the port answers %d after it was freed", code)
	}
}

func TestHandler(t *testing.T) {
	then := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		status         Status
		healthz, livez int
	}{
		"all is well":              {Status{Healthy: true, Eligible: true, Updated: then}, 200, 200},
		"the node is drained":      {Status{Healthy: true, Eligible: false, Updated: then}, 503, 200},
		"the rules are too old":    {Status{Healthy: false, Eligible: true, Updated: then}, 503, 503},
		"too old, and about to go": {Status{Healthy: false, Eligible: false, Updated: then}, 503, 503},
	} {
		t.Run(name, func(t *testing.T) {
			counted := map[string]int{}
			h := Handler(func() Status { return test.status }, "nftables", func(path string, code int) { counted[path] = code })
			ask := func(path string) (int, []byte) {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
				if got := w.Header().Get("Server"); got != Signature {
					t.Errorf("%s is answered by %q", path, got)
				}
				return w.Code, w.Body.Bytes()
			}
			for path, want := range map[string]int{"/healthz": test.healthz, "/livez": test.livez} {
				code, text := ask(path)
				var body struct {
					LastUpdated, CurrentTime time.Time
					NodeEligible             *bool
					Healthy                  bool
					Status                   map[string]struct{ Healthy bool }
				}
				if err := json.Unmarshal(text, &body); err != nil {
					t.Fatal(err)
				}
				if code != want || counted[path] != want || body.Healthy != (want == 200) {
					t.Errorf("%s: %d %s", path, code, text)
				}
				if !body.LastUpdated.Equal(then) || body.CurrentTime.IsZero() || len(body.Status) != 2 || (body.NodeEligible != nil) != (path == "/healthz") {
					t.Errorf("%s: %s", path, text)
				}
			}
			if code, text := ask("/proxyMode"); code != 200 || string(text) != "nftables" {
				t.Errorf("/proxyMode: %d %s", code, text)
			}
		})
	}
}

func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		Serve(ctx, netip.MustParseAddrPort("127.0.0.1:0"), http.NotFoundHandler(), slog.New(slog.NewTextHandler(t.Output(), nil)))
		close(done)
	}()
	cancel()
	<-done
}
