package announce

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// scenario is one of testdata: what is given, one step after the other, and who then announces what. What a step does not mention is as in
// the step before; Services and addresses that it mentions replace those of their name. A null deletes.
type scenario struct {
	Name  string `json:"name"`
	Steps []step `json:"steps"`
}

type step struct {
	Nodes             []siteNode                              `json:"nodes,omitempty"`
	L2Advertisements  map[string]v1beta1.L2AdvertisementSpec  `json:"l2Advertisements,omitempty"`
	BGPAdvertisements map[string]v1beta1.BGPAdvertisementSpec `json:"bgpAdvertisements,omitempty"`
	BGPPeers          map[string]v1beta1.BGPPeerSpec          `json:"bgpPeers,omitempty"`
	Services          map[string]*siteService                 `json:"services,omitempty"`
	IgnoreExcludeLB   bool                                    `json:"ignoreExcludeLB,omitempty"`
	Expect            outcome                                 `json:"expect"`
}

// siteNode is a Node with the label name, and its speaker, which is alive and has the interfaces eth0 and eth1.
type siteNode struct {
	Name               string            `json:"name"`
	Labels             map[string]string `json:"labels,omitempty"`
	NetworkUnavailable bool              `json:"networkUnavailable,omitempty"`
	Dead               bool              `json:"dead,omitempty"`
	Leaving            bool              `json:"leaving,omitempty"`
	Interfaces         []string          `json:"interfaces,omitempty"`
}

type siteService struct {
	Addresses   []netip.Addr                        `json:"addresses,omitempty"`
	Labels      map[string]string                   `json:"labels,omitempty"`
	Annotations map[string]string                   `json:"annotations,omitempty"`
	Policy      corev1.ServiceExternalTrafficPolicy `json:"policy,omitempty"`
	Endpoints   []siteEndpoint                      `json:"endpoints,omitempty"`
}

type siteEndpoint struct {
	Node    string `json:"node"`
	Ready   *bool  `json:"ready,omitempty"`
	Serving *bool  `json:"serving,omitempty"`
}

// outcome is what comes of it, as far as a scenario is interested: what is null is not looked at.
type outcome struct {
	// Layer2 says of each address who answers for it and by which rule it was elected, or why nobody does.
	Layer2 map[string]string `json:"layer2,omitempty"`
	// Candidates of each Service, with interfaces and weight if they have such.
	Candidates map[string][]string `json:"candidates,omitempty"`
	// Routes are what each node tells routers.
	Routes map[string][]string `json:"routes,omitempty"`
	// Sessions are the peers of each node.
	Sessions map[string][]string `json:"sessions,omitempty"`
	// Told says of each Service which peers each node tells of it, or why none.
	Told map[string]map[string]string `json:"told,omitempty"`
	// LeftOut are the BGPAdvertisements that contradict older ones.
	LeftOut []string `json:"leftOut,omitempty"`
}

func TestScenarios(t *testing.T) {
	for _, file := range []string{"layer2", "bgp"} {
		text, err := os.ReadFile("testdata/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var scenarios []scenario
		if err := yaml.UnmarshalStrict(text, &scenarios); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, sc := range scenarios {
			t.Run(file+"/"+sc.Name, func(t *testing.T) {
				for round := range uint64(100) {
					if sc.play(t, rand.New(rand.NewPCG(round, 0))); t.Failed() {
						t.Fatalf("with the inputs in order %d", round)
					}
				}
			})
		}
	}
}

// play goes through the steps with inputs in an order of r's.
func (sc *scenario) play(t *testing.T, r *rand.Rand) {
	site := step{Services: map[string]*siteService{}}
	holders := map[netip.Addr]string{}
	for i := range sc.Steps {
		site.follow(&sc.Steps[i])
		got := site.outcome(r, holders)
		if diff := cmp.Diff(sc.Steps[i].Expect, got.about(&sc.Steps[i].Expect)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i+1, diff)
		}
	}
}

// follow takes over what a step mentions.
func (s *step) follow(next *step) {
	if next.Nodes != nil {
		s.Nodes = next.Nodes
	}
	if next.L2Advertisements != nil {
		s.L2Advertisements = next.L2Advertisements
	}
	if next.BGPAdvertisements != nil {
		s.BGPAdvertisements = next.BGPAdvertisements
	}
	if next.BGPPeers != nil {
		s.BGPPeers = next.BGPPeers
	}
	s.IgnoreExcludeLB = next.IgnoreExcludeLB
	for name, svc := range next.Services {
		if s.Services[name] = svc; svc == nil {
			delete(s.Services, name)
		}
	}
}

// about leaves out what nobody asked for.
func (o outcome) about(want *outcome) outcome {
	if want.Layer2 == nil {
		o.Layer2 = nil
	}
	if want.Candidates == nil {
		o.Candidates = nil
	}
	if want.Routes == nil {
		o.Routes = nil
	}
	if want.Sessions == nil {
		o.Sessions = nil
	}
	if want.Told == nil {
		o.Told = nil
	}
	return o
}

// outcome decides as speakers do. holders are those of each address, before and after.
func (s *step) outcome(r *rand.Rand, holders map[netip.Addr]string) outcome {
	cfg, _ := config.Parse(s.resources(r))
	nodes := s.nodes(r)
	services := map[string]Service{}
	for name, svc := range s.Services {
		services[name] = svc.service(name, r)
	}
	o := outcome{
		Layer2: map[string]string{}, Candidates: map[string][]string{}, Routes: map[string][]string{}, Sessions: map[string][]string{},
		Told: map[string]map[string]string{},
	}
	s.elect(&o, cfg, nodes, services, holders)
	s.route(&o, cfg, nodes, services)
	return o
}

// elect finds out who answers for each address. Services that share one, directly or through others, are one node's.
func (s *step) elect(o *outcome, cfg *config.Config, nodes []Node, services map[string]Service, holders map[netip.Addr]string) {
	parts, why := map[string][]Candidate{}, map[string]Reason{}
	for name := range s.Services {
		ads, reason := Advertisements(services[name], "pool", cfg.L2Advertisements)
		if reason == "" {
			parts[name], reason = Eligible(services[name], ads, nodes)
		}
		why[name] = reason
		o.Candidates[name] = []string{}
		for _, c := range parts[name] {
			o.Candidates[name] = append(o.Candidates[name], c.text())
		}
	}
	for name, svc := range s.Services {
		group := s.group(name)
		var together [][]Candidate
		var addrs []netip.Addr
		holder := ""
		for _, member := range group {
			if len(parts[member]) > 0 {
				together = append(together, parts[member])
			}
			addrs = append(addrs, s.Services[member].Addresses...)
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		for _, a := range addrs {
			if holder == "" {
				holder = holders[a]
			}
		}
		for _, a := range svc.Addresses {
			node, rule := Election{Key: addrs[0], Candidates: Together(together...), Holder: holder}.Decide()
			if node == "" {
				o.Layer2[a.String()] = "nobody: " + string(why[name])
				continue
			}
			o.Layer2[a.String()] = node + ": " + string(rule)
		}
	}
	for text, who := range o.Layer2 {
		node, _, _ := strings.Cut(who, ":")
		if node != "nobody" {
			holders[netip.MustParseAddr(text)] = node
		}
	}
}

// group returns the Services that share addresses with this one, sorted.
func (s *step) group(name string) []string {
	group := []string{name}
	for i := 0; i < len(group); i++ {
		for other, svc := range s.Services {
			shares := slices.ContainsFunc(svc.Addresses, func(a netip.Addr) bool { return slices.Contains(s.Services[group[i]].Addresses, a) })
			if shares && !slices.Contains(group, other) {
				group = append(group, other)
			}
		}
	}
	slices.Sort(group)
	return group
}

// text writes a candidate down.
func (c Candidate) text() string {
	text := c.Node
	if c.Interfaces != nil {
		text += " on " + strings.Join(c.Interfaces, ",")
	}
	if c.Weight > 0 {
		text += fmt.Sprintf(" weight %d", c.Weight)
	}
	return text
}

// route finds out what each node tells routers.
func (s *step) route(o *outcome, cfg *config.Config, nodes []Node, services map[string]Service) {
	for i := range nodes {
		n := &nodes[i]
		peers, _ := SessionsOf(n, Site{}, cfg.BGPPeers)
		names := []string{}
		for _, p := range peers {
			names = append(names, p.Name)
		}
		o.Sessions[n.Name] = names
		table := NewRouteTable()
		for name, svc := range services {
			if o.Told[name] == nil {
				o.Told[name] = map[string]string{}
			}
			svc.LocalEndpoints = 1
			var told []string
			var why Reason
			for _, a := range s.Services[name].Addresses {
				var family []string
				for _, p := range peers {
					if tells(p, a) {
						family = append(family, p.Name)
					}
				}
				contributions, reason := Routes(svc, a, "pool", cfg.BGPAdvertisements, n, family)
				table.Set(RouteKey{Service: name, Addr: a}, contributions)
				for _, c := range contributions {
					told = append(told, c.Peers...)
					o.LeftOut = append(o.LeftOut, c.LeftOut...)
				}
				why = reason
			}
			slices.Sort(told)
			o.Told[name][n.Name] = strings.Join(slices.Compact(told), ",") + string(why)
		}
		o.Routes[n.Name] = []string{}
		for _, r := range table.Routes() {
			for _, p := range r.Paths {
				o.Routes[n.Name] = append(o.Routes[n.Name], r.Prefix.String()+" to "+strings.Join(p.Peers, ",")+attributesText(p.Attributes))
			}
		}
	}
	slices.Sort(o.LeftOut)
	o.LeftOut = slices.Compact(o.LeftOut)
}

func attributesText(a *bgp.Attributes) string {
	text := ""
	if len(a.Communities) > 0 {
		text = " with"
		for _, c := range a.Communities {
			text += " " + c.String()
		}
	}
	if a.LocalPref > 0 {
		text += fmt.Sprintf(" localPref %d", a.LocalPref)
	}
	return text
}

// resources returns the objects, in an order of r's.
func (s *step) resources(r *rand.Rand) config.Resources {
	pool := v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: "pool"}}
	pool.Spec.Addresses = []string{"10.20.30.0/24", "2001:db8::/64", "10.0.0.0/24"}
	resources := config.Resources{Pools: []v1beta1.IPAddressPool{pool}}
	for _, name := range shuffled(r, slices.Sorted(maps.Keys(s.L2Advertisements))) {
		resources.L2Advertisements = append(resources.L2Advertisements, v1beta1.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: s.L2Advertisements[name]})
	}
	for _, name := range shuffled(r, slices.Sorted(maps.Keys(s.BGPAdvertisements))) {
		resources.BGPAdvertisements = append(resources.BGPAdvertisements, v1beta1.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: s.BGPAdvertisements[name]})
	}
	for _, name := range shuffled(r, slices.Sorted(maps.Keys(s.BGPPeers))) {
		resources.BGPPeers = append(resources.BGPPeers, v1beta1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: s.BGPPeers[name]})
	}
	return resources
}

func (s *step) nodes(r *rand.Rand) []Node {
	var nodes []Node
	for _, n := range shuffled(r, s.Nodes) {
		object := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{"name": n.Name}}}
		maps.Copy(object.Labels, n.Labels)
		if n.NetworkUnavailable {
			object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue}}
		}
		node := NodeOf(&object, s.IgnoreExcludeLB)
		node.Live, node.Leaving = !n.Dead, n.Leaving
		if node.Interfaces = n.Interfaces; n.Interfaces == nil {
			node.Interfaces = []string{"eth0", "eth1"}
		}
		nodes = append(nodes, node)
	}
	return nodes
}

func (s *siteService) service(name string, r *rand.Rand) Service {
	object := corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: s.Labels, Annotations: s.Annotations}}
	object.Spec.ExternalTrafficPolicy = s.Policy
	svc := ServiceOf(&object)
	for _, e := range shuffled(r, s.Endpoints) {
		if Serves(&discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: e.Ready, Serving: e.Serving}}) {
			svc.Serving = append(svc.Serving, e.Node)
		}
	}
	slices.Sort(svc.Serving)
	svc.Serving = slices.Compact(svc.Serving)
	return svc
}

func shuffled[T any](r *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
