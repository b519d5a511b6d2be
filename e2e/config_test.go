package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// configCondition waits until a pool or advertisement has the condition, and returns its message.
func configCondition(t *testing.T, object client.Object, name, kind string, status metav1.ConditionStatus, reason string) (message string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), fmt.Sprintf("%s of %s to be %s for %s", kind, name, status, reason), func(ctx context.Context) error {
		if err := lab.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
			return err
		}
		var conditions []metav1.Condition
		switch o := object.(type) {
		case *v1beta1.IPAddressPool:
			conditions = o.Status.Conditions
		case *v1beta1.L2Advertisement:
			conditions = o.Status.Conditions
		}
		for _, c := range conditions {
			if c.Type == kind && c.Status == status && c.Reason == reason {
				message = c.Message
				return nil
			}
		}
		return fmt.Errorf("it has %v", conditions)
	}))
	return message
}

func TestFaultyConfigurationIsExplained(t *testing.T) {
	manifest := func(kind, name, spec string) string {
		return fmt.Sprintf("apiVersion: steelyard.io/v1beta1\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", kind, name, spec)
	}
	for name, c := range map[string]struct {
		manifest string
		object   client.Object
		kind     string
		status   metav1.ConditionStatus
		reason   string
		names    string // the message must contain it
	}{
		"overlap with an older pool": {manifest("IPAddressPool", "fault", `{addresses: [192.0.2.118-192.0.2.121], autoAssign: false}`),
			&v1beta1.IPAddressPool{}, "Valid", metav1.ConditionFalse, "OverlappingPools", "192.0.2.118-192.0.2.119"},
		"a node's own address": {manifest("IPAddressPool", "fault", `{addresses: [192.0.2.12-192.0.2.14], autoAssign: false}`),
			&v1beta1.IPAddressPool{}, "NodeAddressInPool", metav1.ConditionTrue, "NodeAddressInPool", "node-2"},
		"unknown pool": {manifest("L2Advertisement", "fault", `{ipAddressPools: [nowhere]}`),
			&v1beta1.L2Advertisement{}, "Valid", metav1.ConditionFalse, "PoolNotFound", "nowhere"},
		"no pool selected": {manifest("L2Advertisement", "fault", `{ipAddressPoolSelectors: [{matchLabels: {team: none}}]}`),
			&v1beta1.L2Advertisement{}, "Valid", metav1.ConditionFalse, "NoPoolSelected", "ipAddressPoolSelectors"},
		"no node selected": {manifest("L2Advertisement", "fault", `{ipAddressPools: [lan], nodeSelectors: [{matchLabels: {rack: none}}]}`),
			&v1beta1.L2Advertisement{}, "Valid", metav1.ConditionFalse, "NoNodeSelected", "nodeSelectors"},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, c.manifest)
			message := configCondition(t, c.object, "fault", c.kind, c.status, c.reason)
			if !strings.Contains(message, c.names) {
				t.Errorf("the message does not name %s: %s", c.names, message)
			}
			t.Log(message)
			// Nothing else is harmed.
			create(t, lbService("unharmed", families[0]))
			owner(t, address(t, "unharmed"))
		})
	}
}

func TestSchemaRefusesBadPools(t *testing.T) {
	for name, c := range map[string]struct{ spec, names string }{
		"malformed":    {`{addresses: [192.0.2.300/24]}`, "192.0.2.300/24"},
		"reversed":     {`{addresses: [192.0.2.20-192.0.2.10]}`, "192.0.2.10-192.0.2.20"},
		"duplicate":    {`{addresses: [192.0.2.0/28, 192.0.2.0/28]}`, "Duplicate"},
		"mixed family": {`{addresses: ["192.0.2.1-2001:db8::1"]}`, "192.0.2.1-2001:db8::1"},
		"none":         {`{addresses: []}`, "addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := "apiVersion: steelyard.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: refused}\nspec: " + c.spec + "\n"
			err := lab.Apply(t.Context(), manifest)
			if err == nil {
				must(t, lab.Remove(t.Context(), manifest))
				t.Fatal("the API server took it")
			}
			if !strings.Contains(err.Error(), c.names) {
				t.Errorf("the refusal does not say %s: %v", c.names, err)
			}
		})
	}
}

// The API server itself checks every manifest of the chart, each unknown field included.
func TestManifestsAreStrictlyValid(t *testing.T) {
	root, err := build.ModuleRoot()
	must(t, err)
	rendered, err := lab.Helm(t.Context(), "template", fixture.Release, root, "--namespace", fixture.Namespace)
	must(t, err)
	file := filepath.Join(t.TempDir(), "rendered.yaml")
	must(t, os.WriteFile(file, []byte(rendered), 0o644))
	out, err := lab.Kubectl(t.Context(), "apply", "--dry-run=server", "--validate=strict", "-f", file)
	must(t, err)
	if !strings.Contains(out, "daemonset.apps/steelyard-speaker") {
		t.Errorf("the speaker is missing in what was checked:\n%s", out)
	}
}

func TestUpgradeKeepsAddresses(t *testing.T) {
	create(t, lbService("upgrade", families[0], dualStack))
	before, err := lab.AwaitAddresses(t.Context(), "upgrade", 2)
	must(t, err)
	owner(t, before[0])
	for _, level := range []string{"debug", "info"} {
		must(t, lab.Install(t.Context(), "logLevel="+level))
	}
	after, err := lab.AwaitAddresses(t.Context(), "upgrade", 2)
	must(t, err)
	if after[0] != before[0] || after[1] != before[1] {
		t.Errorf("upgrading moved the Service from %v to %v", before, after)
	}
	for _, addr := range after {
		owner(t, addr)
		reach(t, clientHost(), "tcp", addr)
	}
}
