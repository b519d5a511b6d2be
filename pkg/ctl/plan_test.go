package ctl

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/steelyard-lb/steelyard/pkg/plan"
)

func TestPlanAndMigrate(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*apiServer)
		metallb bool // MetalLB is in the cluster
		args    string
		code    int
		says    []string // in what is printed
		never   string
	}{
		"a pool that moves": {
			args: "plan -f testdata/moved.yaml", code: exitLoss,
			says: []string{"shop/web  192.0.2.10 -> 198.51.100.0  moves", "which is in no pool any longer", `left out, because it does not configure Steelyard: Deployment "web"`},
		},
		"an advertisement that goes": {
			args: "plan --delete l2advertisements/lan", code: exitLoss,
			says: []string{"nobody announces it", "no longer announced on the local network by node-1, node-2, node-3"},
		},
		"a file that is all there is": {
			args: "plan -f testdata/moved.yaml --prune", code: exitLoss, says: []string{"moves, nobody announces it"},
		},
		"nothing that matters": {
			args: "plan -f ../../config/samples/on-request.yaml", says: []string{"Nothing changes. Services that keep their addresses and announcers: 1."},
		},
		"a directory": {args: "plan -f ../../config/samples", says: []string{"Services that keep their addresses and announcers"}},
		"a field that does not exist": {
			args: "plan -f testdata/misspelt.yaml", code: exitFailed, says: []string{`IPAddressPool "prod"`, `unknown field "spec.addreses"`},
		},
		"a file that has to be rendered": {
			args: "plan -f testdata/kustomization.yaml", code: exitFailed, says: []string{"a document has no kind, only namespace, resources, so it is no object: render"},
		},
		"a file that does not exist": {args: "plan -f nowhere.yaml", code: exitFailed, says: []string{"nowhere.yaml: no such file"}},
		"no change":                  {args: "plan", code: exitFailed, says: []string{"give objects of Steelyard with -f"}},
		"an object that is not there": {
			args: "plan --delete IPAddressPool/old", code: exitFailed, says: []string{`there is no IPAddressPool "old" to delete`},
		},
		"a kind that is not ours": {args: "plan --delete pods/x", code: exitFailed, says: []string{"write KIND/NAME, where KIND is one of IPAddressPool,"}},
		"Services that may not be read": {
			prepare: func(s *apiServer) { s.forbid("services") }, args: "plan -f testdata/moved.yaml", code: exitFailed,
			says: []string{"error: there is no plan without services: you may not"},
		},
		"nodes that may not be read": {
			prepare: func(s *apiServer) { s.forbid("nodes") }, args: "plan -f testdata/moved.yaml", code: exitLoss,
			says: []string{"The plan may be wrong, because these could not be read:\n    nodes: you may not"},
		},
		"MetalLB's configuration in the cluster": {
			metallb: true, args: "migrate",
			says:  []string{"kind: IPAddressPool", "- 198.51.100.0/30", "kind: BGPPeer", "Services that keep all of their addresses: 2"},
			never: "203.0.113.0",
		},
		"MetalLB in another namespace": {
			metallb: true, args: "migrate -n lb", code: exitLoss, says: []string{"- 203.0.113.0/24"}, never: "198.51.100.0/30",
		},
		"an address that MetalLB has no pool for any more": {
			metallb: true, args: "migrate", code: exitLoss,
			prepare: func(s *apiServer) {
				pool := s.objects["metallb.io/ipaddresspools"][0]
				pool.Object["spec"] = map[string]any{"addresses": []any{"198.51.100.2/31"}}
			},
			says: []string{`Service "mail/smtp": would not keep all of its addresses`, "no longer 198.51.100.1"},
		},
		"MetalLB's configuration that may not be read": {
			metallb: true, prepare: func(s *apiServer) { s.forbid("metallb.io/bgppeers") }, args: "migrate", code: exitFailed,
			says: []string{"list MetalLB's objects of kind BGPPeer in namespace metallb-system"},
		},
		"no MetalLB": {
			prepare: func(s *apiServer) {
				s.objects["metallb.io/ipaddresspools"], s.objects["metallb.io/bgppeers"] = nil, nil
			},
			metallb: true, args: "migrate", code: exitFailed, says: []string{"there is no configuration of MetalLB in namespace metallb-system: name its namespace with -n"},
		},
		"a configuration of FRR beside that of MetalLB": {
			metallb: true, args: "migrate", code: exitLoss,
			prepare: func(s *apiServer) {
				own := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "frrk8s.metallb.io/v1beta1", "kind": "FRRConfiguration"}}
				own.SetNamespace("frr-k8s-system")
				own.SetName("receive-all")
				s.objects["frrk8s.metallb.io/frrconfigurations"] = append(s.objects["frrk8s.metallb.io/frrconfigurations"], own)
			},
			says: []string{`FRRConfiguration "receive-all": Steelyard has no FRR`},
		},
		"files without MetalLB": {args: "migrate -f testdata/namespace.yaml", code: exitFailed, says: []string{"there is no configuration of MetalLB in the files"}, never: "-f"},
		"no such namespace":     {args: "migrate -n nowhere", code: exitFailed, says: []string{"there is no configuration of MetalLB in namespace nowhere"}},
		"files without the Namespaces that a pool selects by their labels": {
			args: "migrate -f testdata/selecting.yaml", code: exitFailed,
			says: []string{`because IPAddressPool "team" has spec.serviceAllocation.namespaceSelectors`, "add them to the files"}, never: "would not keep",
		},
		"files with them": {
			args: "migrate -f testdata/selecting.yaml -f testdata/namespace.yaml", says: []string{"Services that keep all of their addresses: 1"},
		},
		"files": {
			args: "migrate -f testdata/metallb.yaml", code: exitLoss,
			says: []string{"- 198.51.100.0/30", "if MetalLB is installed in lb, say so with -n", "Services that keep all of their addresses: 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := []string{theCluster}
			if test.metallb {
				files = append(files, "testdata/metallb.yaml")
			}
			s := startAPIServer(t, files...)
			if test.prepare != nil {
				test.prepare(s)
			}
			s.answers(t, test.args, test.code, test.says, test.never)
		})
	}
}

func TestPlanOutput(t *testing.T) {
	s := startAPIServer(t, theCluster)
	out, _, code := s.run(t, "plan", "-f", "testdata/moved.yaml", "-o", "json")
	var p plan.Plan
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != exitLoss {
		t.Fatalf("%v, exit code %d:\n%s", err, code, out)
	}
	if len(p.Services) != 1 || p.Services[0].Outcome != plan.Moves || p.Services[0].To[0].String() != "198.51.100.0" {
		t.Errorf("it says %+v", p)
	}
}

// FuzzReadObjects: whatever the files are, there are objects or there is an error.
func FuzzReadObjects(f *testing.F) {
	for _, text := range []string{"", "---\n", "a: b", "kind: List\nitems: [{kind: x}, 1]", "kind: List\nitems: {}", "[1, 2]", "{\"kind\": \"Service\"}\n---\n{", "kind: []\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := readObjects([]string{"-"}, strings.NewReader(text))
		if err == nil {
			_, _ = editOf(objects, nil, false)
		}
	})
}
