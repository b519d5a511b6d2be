package ctl

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/explain"
)

// theCluster has a Service shop/web that works; it is what package explain's situations start from.
const theCluster = "../explain/testdata/base.yaml"

// answering has the speakers answer as those of a cluster where all is well.
func (s *apiServer) answering() *apiServer {
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		at := "speaker-" + node + ":7472/view"
		s.pods[at] = fmt.Sprintf(`{"node": %q, "members": ["node-1", "node-2", "node-3"], "quorum": true, "announces": 1, "routes": 0}`, node)
		s.pods[at+"/services/shop/web"] = fmt.Sprintf(`{"node": %q, "addresses": [{"address": "192.0.2.10", "pool": "prod", "carried": true,
			"layer2": {"owner": "node-2", "announced": %v, "interfaces": ["eth0"]}, "bgp": {"refused": "NoAdvertisement"}}]}`, node, node == "node-2")
	}
	return s
}

func (s *apiServer) forbid(resources ...string) *apiServer {
	for _, r := range resources {
		s.forbidden[r] = true
	}
	return s
}

func TestCommands(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*apiServer)
		args    string
		code    int
		says    []string // in what is printed
		never   string
	}{
		"a Service that works": {
			args: "explain service web", says: []string{"Service shop/web works.", "node-2 answers on eth0", "in the kernel of 3 of 3 nodes"}, never: "Not known",
		},
		"a speaker that is not asked": {
			prepare: func(s *apiServer) { s.forbid("pods/proxy") }, args: "explain service web",
			says: []string{"Service shop/web works.", "node-2 answers on eth0", "rules:          not known", "ask for the right to get pods/proxy in namespace steelyard-system"},
		},
		"a speaker that answers nonsense": {
			prepare: func(s *apiServer) { s.pods["speaker-node-3:7472/view/services/shop/web"] = "<html>" }, args: "explain service web",
			says: []string{"works", "speakers: no answer from node-3", "in the kernel of 2 of 2 nodes"},
		},
		"a Service that does not work": {
			prepare: func(s *apiServer) { s.objects["l2advertisements"] = nil }, args: "explain svc web", code: exitWrong,
			says: []string{"does not work", "NoAdvertisement"},
		},
		"only the namespace's objects may be read": {
			prepare: func(s *apiServer) {
				s.forbid("nodes", "namespaces", "pods", "ipaddresspools", "addressreservations", "l2advertisements", "bgpadvertisements", "bgppeers",
					"bfdprofiles", "communities", "bgpsessions", "leases")
			},
			args: "explain service web", code: exitFailed, says: []string{"not all that matters could be read", "node-2 answers on eth0", "ipaddresspools.steelyard.io, addressreservations.steelyard.io", "you may not list them: ask for that right"},
		},
		"no Steelyard in the cluster": {
			prepare: func(s *apiServer) {
				for _, r := range resources {
					s.absent[r.plural] = r.groupVersion == "steelyard.io/v1beta1"
				}
			},
			args: "explain service web", code: exitFailed, says: []string{"install Steelyard's CRDs"},
		},
		"no such Service": {
			args: "explain service wbe", code: exitFailed, says: []string{"error: there is no Service wbe in namespace shop", "-n"},
		},
		"another namespace": {
			args: "explain service web -n default", code: exitFailed, says: []string{"there is no Service web in namespace default"},
		},
		"Services that may not be read": {
			prepare: func(s *apiServer) { s.forbid("services") }, args: "explain service web", code: exitFailed,
			says: []string{"error: you may not list the Services of namespace shop"},
		},
		"no name":         {args: "explain service", code: exitFailed, says: []string{"error: accepts 1 arg(s)"}},
		"unknown output":  {args: "explain service web -o xml", code: exitFailed, says: []string{"-o xml is not possible: write json or yaml"}},
		"unknown command": {args: "explode", code: exitFailed, says: []string{`unknown command "explode"`}},
		"completion":      {args: "__complete explain service w", says: []string{"web"}},
		"pools":           {args: "pools", says: []string{"prod", "no controller has looked at it yet"}, never: "shop/web"},
		"who has what":    {args: "pools --services", says: []string{"192.0.2.10  shop/web"}},
		"pools that may not be read": {
			prepare: func(s *apiServer) { s.forbid("ipaddresspools") }, args: "pools", code: exitFailed, says: []string{"ipaddresspools.steelyard.io: you may not list them: ask for that right"},
		},
		"status": {
			args: "status", says: []string{"Steelyard in namespace steelyard-system", "controller-a leads", "node-3  yes    3 of 3"}, never: "Wrong",
		},
		"status without a leader": {
			prepare: func(s *apiServer) { s.objects["leases"] = nil }, args: "status", code: exitWrong, says: []string{"NoLeader"},
		},
		"status without rights": {
			prepare: func(s *apiServer) { s.forbid("pods") }, args: "status", code: exitFailed, says: []string{"pods: you may not list them"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startAPIServer(t, theCluster).answering()
			if test.prepare != nil {
				test.prepare(s)
			}
			s.answers(t, test.args, test.code, test.says, test.never)
		})
	}
}

// answers runs a command line, and checks the exit code, what is said, and what must not be.
func (s *apiServer) answers(t *testing.T, args string, want int, says []string, never string) {
	t.Helper()
	out, errOut, code := s.run(t, strings.Fields(args)...)
	said := out + errOut
	if code != want {
		t.Errorf("the exit code is %d, not %d", code, want)
	}
	for _, words := range says {
		if !strings.Contains(said, words) {
			t.Errorf("it does not say %q", words)
		}
	}
	if never != "" && strings.Contains(said, never) {
		t.Errorf("it says %q", never)
	}
	if t.Failed() {
		t.Log(said)
	}
}

func TestOutput(t *testing.T) {
	s := startAPIServer(t, theCluster).answering()
	for format, decode := range map[string]func([]byte, any) error{
		"json": json.Unmarshal,
		"yaml": func(text []byte, into any) error { return yaml.Unmarshal(text, into) },
	} {
		out, _, code := s.run(t, "explain", "service", "web", "-o", format)
		var e explain.Explanation
		if err := decode([]byte(out), &e); err != nil || code != 0 {
			t.Fatalf("%s: %v, exit code %d:\n%s", format, err, code, out)
		}
		if e.Verdict != explain.Works || len(e.Addresses) != 1 || len(e.Addresses[0].Nodes) != 3 || !e.Addresses[0].Nodes[1].Layer2.Announced {
			t.Errorf("%s: it says %+v", format, e)
		}
	}
}

func TestPlugin(t *testing.T) {
	var out strings.Builder
	code := Run(t.Context(), []string{"/usr/local/bin/kubectl-steelyard", "explain", "service", "--help"}, Streams{In: strings.NewReader(""), Out: &out, ErrOut: &out})
	if code != 0 || !strings.Contains(out.String(), "\n  kubectl steelyard explain service NAME") {
		t.Errorf("exit code %d:\n%s", code, out.String())
	}
}

func TestNoAPIServer(t *testing.T) {
	s := startAPIServer(t, theCluster)
	s.url = "http://127.0.0.1:1"
	if _, errOut, code := s.run(t, "explain", "service", "web"); code != exitFailed || !strings.Contains(errOut, "connection refused") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}
