package speaker

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// window is a node of a world with a routing, and what it says when it is asked.
type window struct {
	gate    *addressGate // of the routing
	metrics bgpMetrics
	viewer  *viewer
	mux     *http.ServeMux
}

func (w *world) window(t *testing.T, node string) *window {
	engine := &fakeEngine{changed: make(chan struct{}, 1), resets: map[string]string{}}
	gate := &addressGate{changed: make(chan struct{}, 1), closed: map[netip.Addr]bool{}}
	synced := make(chan struct{})
	close(synced)
	r := newRouting(w.running[node].speaker.inventory, RoutingConfig{
		Node: node, Engine: engine, BFD: &fakeBFD{}, Downs: newDowns(engine), Network: &fakeNetwork{changed: make(chan struct{}, 1)}, Dataplane: gate,
		Report: &fakeSessions{bgp: map[string]*v1beta1.BGPAnnouncement{}}, Synced: synced, Log: slog.New(slog.DiscardHandler),
	})
	go r.Run(t.Context())
	in := &window{gate: gate, metrics: bgpMetrics{engine, r}, viewer: &viewer{}, mux: http.NewServeMux()}
	in.viewer.register(in.mux)
	in.viewer.set(w.running[node].speaker, r, DataplaneOptions{Config: dataplane.Config{Mode: dataplane.LoadBalancer}, Backend: "nftables"})
	return in
}

func (in *window) get(path string) (int, string) {
	recorder := httptest.NewRecorder()
	in.mux.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	return recorder.Code, strings.TrimSpace(recorder.Body.String())
}

func (in *window) expect(t *testing.T, why, path, want string) {
	t.Helper()
	if code, got := in.get(path); code != http.StatusOK || got != want {
		t.Errorf("%s: %s answers %d\n%s\nwant\n%s", why, path, code, got, want)
	}
}

func TestView(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.setConfig(func(c *config.Config) {
			c.BGPPeers = []*config.BGPPeer{tor()}
			c.BGPAdvertisements = []*config.BGPAdvertisement{
				{Name: "one", Pools: []string{"pool"}, Length4: 32, Length6: 128},
				{Name: "all", Pools: []string{"pool"}, Length4: 24, Length6: 128},
			}
		})
		in := w.window(t, "node-a")
		stranger := netip.MustParseAddr("10.0.0.9")
		w.lan.mu.Lock()
		w.lan.strangers[stranger] = net.HardwareAddr{0xde, 0xad, 0xbe, 0xef, 0, 1}
		w.lan.mu.Unlock()
		w.serve(Service{Name: "default/idle", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}})
		w.serve(Service{Name: "default/here", Addrs: []netip.Addr{v4, v6}, Local: true}, "node-a")
		w.serve(Service{Name: "default/there", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.8")}, Local: true}, "node-b")
		w.serve(Service{Name: "default/taken", Addrs: []netip.Addr{stranger}, Local: true}, "node-a")
		time.Sleep(10 * time.Second)

		in.expect(t, "a node", "/view", `{"node":"node-a","members":["node-a","node-b"],"quorum":true,"announces":2,"routes":3,`+
			`"conflicts":["10.0.0.9"],"dataplane":{"mode":"loadbalancer","backend":"nftables","settled":true}}`)
		in.expect(t, "announced here", "/view/services/default/here", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.1","pool":"pool","carried":true,"layer2":{"owner":"node-a","announced":true},"bgp":{"prefixes":["10.0.0.0/24","10.0.0.1/32"],"peers":["tor"]}},`+
			`{"address":"2001:db8::1","pool":"pool","carried":true,"layer2":{"owner":"node-a","announced":true},"bgp":{"refused":"NoPeer"}}]}`)
		in.expect(t, "announced there", "/view/services/default/there", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.8","pool":"pool","carried":true,"layer2":{"owner":"node-b","announced":false,"refused":"NoLocalEndpoint"},"bgp":{"refused":"NoLocalEndpoint"}}]}`)
		in.expect(t, "a stranger has it", "/view/services/default/taken", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.9","pool":"pool","carried":true,"layer2":{"owner":"node-a","announced":false,`+
			`"conflict":"the host with the MAC address de:ad:be:ef:00:01 on eth0 answers for it"},"bgp":{"prefixes":["10.0.0.0/24","10.0.0.9/32"],"peers":["tor"]}}]}`)
		in.expect(t, "no endpoint", "/view/services/default/idle", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.7","pool":"pool","carried":true,"layer2":{"announced":false,"refused":"NoServingEndpoint"},"bgp":{"refused":"NoServingEndpoint"}}]}`)

		in.gate.close(v4)
		w.running["node-a"].gate.close(true)
		time.Sleep(2 * repair)
		in.expect(t, "without rules", "/view/services/default/here", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.1","pool":"pool","carried":false,"layer2":{"announced":false,"refused":"NotCarried"},"bgp":{"refused":"NotCarried"}},`+
			`{"address":"2001:db8::1","pool":"pool","carried":false,"layer2":{"announced":false,"refused":"NotCarried"},"bgp":{"refused":"NoPeer"}}]}`)

		w.setNode(Node{Name: "node-a", Labels: labels.Set{"name": "node-a"}, Excluded: true})
		time.Sleep(time.Second)
		in.expect(t, "excluded", "/view/services/default/here", `{"node":"node-a","addresses":[`+
			`{"address":"10.0.0.1","pool":"pool","carried":false,"layer2":{"announced":false,"refused":"ExcludedByLabel"},"bgp":{"refused":"ExcludedByLabel"}},`+
			`{"address":"2001:db8::1","pool":"pool","carried":false,"layer2":{"announced":false,"refused":"ExcludedByLabel"},"bgp":{"refused":"NoPeer"}}]}`)

		if code, got := in.get("/view/services/default/none"); code != http.StatusNotFound || !strings.Contains(got, "default/none") {
			t.Errorf("of a Service that there is not it says %d %s", code, got)
		}
		in.viewer.set(nil, nil, DataplaneOptions{})
		if code, got := in.get("/view"); code != http.StatusServiceUnavailable || got != "the speaker is starting" {
			t.Errorf("while it starts it says %d %s", code, got)
		}
	})
}

func TestRoutesAreMetrics(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		w.setConfig(func(c *config.Config) {
			c.BGPPeers = []*config.BGPPeer{tor()}
			c.BGPAdvertisements = []*config.BGPAdvertisement{{Name: "one", Pools: []string{"pool"}, Length4: 32, Length6: 128}}
		})
		in := w.window(t, "node-a")
		w.serve(Service{Name: "default/here", Addrs: []netip.Addr{v4, v6}}, "node-a")
		time.Sleep(time.Second)
		registry := prometheus.NewRegistry()
		registry.MustRegister(in.metrics, &announced{w.running["node-a"].speaker})
		got := exposed(t, registry, "steelyard_announced{")
		want := []string{
			`steelyard_announced{ip="10.0.0.1",node="node-a",protocol="bgp",service="default/here"} 1`,
			`steelyard_announced{ip="10.0.0.1",node="node-a",protocol="layer2",service="default/here"} 1`,
			`steelyard_announced{ip="2001:db8::1",node="node-a",protocol="layer2",service="default/here"} 1`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// exposed returns the lines of a registry's metrics that begin with a prefix.
func exposed(t *testing.T, registry *prometheus.Registry, prefix string) []string {
	t.Helper()
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if recorder.Code != http.StatusOK {
		t.Errorf("the metrics: %s", recorder.Body)
	}
	var lines []string
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
