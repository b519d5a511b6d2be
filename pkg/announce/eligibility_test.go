package announce

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

func selector(t *testing.T, s string) []labels.Selector {
	t.Helper()
	if s == "" {
		return nil
	}
	parsed, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return []labels.Selector{parsed}
}

func TestEligible(t *testing.T) {
	ad := func(nodes, services string, interfaces ...string) *config.L2Advertisement {
		return &config.L2Advertisement{
			Pools: []string{"other", "pool"}, Nodes: selector(t, nodes), Services: selector(t, services), Interfaces: interfaces,
		}
	}
	elsewhere := &config.L2Advertisement{Pools: []string{"other"}}
	node := func(name string, change func(*Node)) Node {
		n := Node{Name: name, Labels: labels.Set{"name": name}, Live: true, Interfaces: []string{"eth0", "eth-" + name}}
		if change != nil {
			change(&n)
		}
		return n
	}
	both := []Node{node("iris2", nil), node("iris1", nil)}
	serving := func(nodes ...string) []string { return nodes }
	web := labels.Set{"app": "web"}

	for name, tc := range map[string]struct {
		svc    Service
		ads    []*config.L2Advertisement
		nodes  []Node
		want   []Candidate
		reason Reason
	}{
		"an endpoint on no known node does too": {
			svc: Service{Serving: serving("")}, ads: []*config.L2Advertisement{ad("", "")}, nodes: both,
			want: candidates("iris1", "iris2")},
		"no advertisement of the pool": {
			svc: Service{Serving: serving("iris1")}, ads: []*config.L2Advertisement{elsewhere}, nodes: both, reason: NoAdvertisement},
		"an advertisement of the Service": {
			svc: Service{Serving: serving("iris1"), Labels: web}, ads: []*config.L2Advertisement{ad("", "app=web")}, nodes: both,
			want: candidates("iris1", "iris2")},
		"no node can be used": {
			svc: Service{Serving: serving("iris1")}, ads: []*config.L2Advertisement{ad("", "")},
			nodes: []Node{
				node("iris1", func(n *Node) { n.NetworkUnavailable = true }),
				node("iris2", func(n *Node) { n.Leaving = true }),
				node("iris3", func(n *Node) { n.Live = false }),
			}, reason: NoEligibleNode},
		"interfaces take part": {
			svc: Service{Serving: serving("iris1")}, ads: []*config.L2Advertisement{ad("", "", "eth-iris1", "eth-nowhere")}, nodes: both,
			want: []Candidate{{Node: "iris1", Interfaces: []string{"eth-iris1", "eth-nowhere"}}}},
		"interfaces of a node's own advertisements add up": {
			svc: Service{Serving: serving("iris1")},
			ads: []*config.L2Advertisement{
				ad("name=iris1", "", "eth0"), ad("name=iris1", "", "eth-iris1", "eth0"), ad("name=iris2", "", "eth0")},
			nodes: both,
			want:  []Candidate{{Node: "iris1", Interfaces: []string{"eth-iris1", "eth0"}}, {Node: "iris2", Interfaces: []string{"eth0"}}}},
		"one advertisement for all interfaces is enough": {
			svc:   Service{Serving: serving("iris1")},
			ads:   []*config.L2Advertisement{ad("", "", "eth0"), ad("name=iris1", "")},
			nodes: both, want: []Candidate{{Node: "iris1"}, {Node: "iris2", Interfaces: []string{"eth0"}}}},
		"a node without interfaces, and one that has not told": {
			svc: Service{Serving: serving("iris1")}, ads: []*config.L2Advertisement{ad("", "")},
			nodes: []Node{
				node("iris1", func(n *Node) { n.Interfaces = []string{} }), node("iris2", func(n *Node) { n.Interfaces = nil })},
			want: candidates("iris2")},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Candidate
			ads, reason := Advertisements(tc.svc, "pool", tc.ads)
			if reason == "" {
				got, reason = Eligible(tc.svc, ads, tc.nodes)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || reason != tc.reason {
				t.Errorf("reason %q, want %q; candidates (-want +got):\n%s", reason, tc.reason, diff)
			}
		})
	}
}

func TestJudgeNamesTheReason(t *testing.T) {
	ads := []*config.L2Advertisement{{Pools: []string{"pool"}, Nodes: selector(t, "rack=1"), Interfaces: []string{"eth1"}}}
	good := Node{Name: "iris1", Labels: labels.Set{"rack": "1"}, Live: true, Interfaces: []string{"eth0", "eth1"}}
	for reason, change := range map[Reason]func(*Node){
		"":                 func(n *Node) {},
		NoLiveSpeaker:      func(n *Node) { n.Live = false },
		Leaving:            func(n *Node) { n.Leaving = true },
		NetworkUnavailable: func(n *Node) { n.NetworkUnavailable = true },
		ExcludedByLabel:    func(n *Node) { n.Excluded = true },
		NotSelected:        func(n *Node) { n.Labels = nil },
		NoInterface:        func(n *Node) { n.Interfaces = []string{"eth0"} },
		NoLocalEndpoint:    func(n *Node) { n.Name = "iris2" },
	} {
		t.Run(string(reason), func(t *testing.T) {
			n := good
			change(&n)
			if _, got := Judge(Service{Local: true, Serving: []string{"iris1"}}, ads, &n); got != reason {
				t.Errorf("got %q, want %q", got, reason)
			}
		})
	}
}

func TestTogether(t *testing.T) {
	for name, tc := range map[string]struct {
		parts [][]Candidate
		want  []Candidate
	}{
		"nothing":              {nil, nil},
		"nobody":               {[][]Candidate{nil, nil}, nil},
		"one part":             {[][]Candidate{candidates("a", "b")}, candidates("a", "b")},
		"those that can all":   {[][]Candidate{candidates("a", "b"), candidates("b", "c")}, candidates("b")},
		"a part without nodes": {[][]Candidate{candidates("a", "b"), nil}, candidates("a", "b")},
		"no node can all, so those that can most": {
			[][]Candidate{candidates("b"), candidates("a"), candidates("c", "a"), candidates("b")}, candidates("a", "b")},
		"weights add up": {
			[][]Candidate{{{Node: "a", Weight: 5}}, {{Node: "a", Weight: 6}}}, []Candidate{{Node: "a", Weight: 11}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Together(tc.parts...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			slices.Reverse(tc.parts)
			if diff := cmp.Diff(tc.want, Together(tc.parts...)); diff != "" {
				t.Errorf("the order matters (-want +got):\n%s", diff)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	for b.Loop() {
		Election{Key: vip, Candidates: candidates("node-1", "node-2", "node-3"), Load: func(string) int { return 3 }}.Decide()
	}
}
