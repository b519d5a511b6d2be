package rival

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoval(t *testing.T) {
	for _, c := range []struct {
		name   string
		saved  string
		script string // empty: nothing goes
		kept   []string
	}{
		{
			name:  "kubelet's and others' chains stay",
			saved: "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:DOCKER - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A INPUT -j DOCKER\nCOMMIT\n",
		},
		{
			name: "dispatch, chains that refer to each other, and a canary",
			saved: "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:DOCKER - [0:0]\n" +
				"-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n-A PREROUTING -j DOCKER\n" +
				"-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-A\nCOMMIT\n# Completed\n",
			script: "*nat\n-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n" +
				":KUBE-PROXY-CANARY - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n-X KUBE-PROXY-CANARY\n-X KUBE-SERVICES\n-X KUBE-SVC-A\nCOMMIT\n",
		},
		{
			name: "a chain that another program uses stays, with what it needs",
			saved: "*nat\n:OUTPUT ACCEPT [0:0]\n:CNI-HOSTPORT-SETMARK - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n" +
				"-A OUTPUT -j KUBE-SERVICES\n-A CNI-HOSTPORT-SETMARK -j KUBE-SVC-A\n-A KUBE-SERVICES -j KUBE-SVC-A\n-A KUBE-SVC-A -j KUBE-MARK-MASQ\nCOMMIT\n",
			script: "*nat\n-D OUTPUT -j KUBE-SERVICES\n:KUBE-SERVICES - [0:0]\n-X KUBE-SERVICES\nCOMMIT\n",
			kept:   []string{"KUBE-MARK-MASQ", "KUBE-SVC-A"},
		},
		{
			name: "a comment is no jump",
			saved: "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n" +
				"-A INPUT -m comment --comment \"was \\\" -j KUBE-SERVICES\" -j ACCEPT\n-A INPUT -m comment --comment \"was -j KUBE-SERVICES\"\n-A INPUT -m comment --comment -j -j KUBE-SERVICES\nCOMMIT\n",
			script: "*filter\n-D INPUT -m comment --comment -j -j KUBE-SERVICES\n:KUBE-SERVICES - [0:0]\n-X KUBE-SERVICES\nCOMMIT\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			script, gone, kept := removal(c.saved, isProxyChain)
			if gone == 0 {
				script = ""
			}
			if diff := cmp.Diff(c.script, script); diff != "" {
				t.Errorf("script, -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(c.kept, kept); diff != "" {
				t.Errorf("kept, -want +got:\n%s", diff)
			}
		})
	}
}

// Whatever is in the rules, only kube-proxy's chains are emptied or removed, and only jumps to them go.
func FuzzRemoval(f *testing.F) {
	f.Add("*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n")
	f.Add("*nat\n:CNI - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n-A CNI -m comment --comment \"a \\\" b\" -g KUBE-MARK-MASQ\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, saved string) {
		script, gone, _ := removal(saved, isProxyChain)
		removed := 0
		for line := range strings.Lines(script) {
			line = strings.TrimSuffix(line, "\n")
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(line, ":"), "-X "), " ")
			switch {
			case strings.HasPrefix(line, "-D "):
				chain, rule, _ := strings.Cut(line[len("-D "):], " ")
				if isProxyChain(chain) || !isProxyChain(target(rule)) || !strings.Contains(saved, "-A "+chain+" "+rule) {
					t.Errorf("removes the rule %q", line)
				}
			case strings.HasPrefix(line, "-X "):
				removed++
				fallthrough
			case strings.HasPrefix(line, ":"):
				if !isProxyChain(name) {
					t.Errorf("touches the chain of %q", line)
				}
			case line != "COMMIT" && !strings.HasPrefix(line, "*") && line != "":
				t.Errorf("does something else: %q", line)
			}
		}
		if removed != gone {
			t.Errorf("removes %d chains, says %d", removed, gone)
		}
	})
}
