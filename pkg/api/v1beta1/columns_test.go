package v1beta1_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// TestColumns shows what kubectl get prints, columns of -o wide included. Ages are left out.
func TestColumns(t *testing.T) {
	crds := loadCRDs(t)
	for _, tc := range []struct{ name, kind, object, want string }{
		{"a pool", "IPAddressPool", `
			spec: {addresses: [192.0.2.0/24, "2001:db8::/112"]}
			status: {assignedIPv4: 254, availableIPv4: 0, totalIPv4: 254, assignedIPv6: 3, availableIPv6: 65533, totalIPv6: 65536, conditions: [
				{type: Valid, status: "False", reason: OverlappingPools, message: belongs to another, lastTransitionTime: "2026-01-02T03:04:05Z"},
				{type: Overlap, status: "True", reason: OverlappingPools, message: belongs to another, lastTransitionTime: "2026-01-02T03:04:05Z"},
				{type: NodeAddressInPool, status: "False", reason: Accepted, message: "", lastTransitionTime: "2026-01-02T03:04:05Z"},
				{type: Exhausted, status: "True", reason: Exhausted, message: full, lastTransitionTime: "2026-01-02T03:04:05Z"},
				{type: Conflict, status: "False", reason: Accepted, message: "", lastTransitionTime: "2026-01-02T03:04:05Z"}]}`,
			`IPv4Used=254 IPv4Free=0 IPv6Used=3 IPv6Free=65533 Valid=False Exhausted=True Conflict=False ` +
				`Addresses=["192.0.2.0/24","2001:db8::/112"] IPv4Total=254 IPv6Total=65536 AutoAssign=true Strategy=Lowest ` +
				`Overlap=True NodeAddressInPool=False Message=belongs to another`},
		{"a reservation for a Service", "AddressReservation", `
			spec: {addresses: [192.0.2.10/32], for: {namespace: shop, service: web}}
			status: {conditions: [{type: Valid, status: "True", reason: OutsidePools, message: is in no pool, lastTransitionTime: "2026-01-02T03:04:05Z"}]}`,
			`Addresses=["192.0.2.10/32"] ForNamespace=shop ForService=web Valid=True Message=is in no pool`},
		{"a reservation for nobody", "AddressReservation", `spec: {addresses: [192.0.2.10/32]}`, `Addresses=["192.0.2.10/32"]`},
		{"a peer at an address", "BGPPeer", `
			spec: {myASN: 4200000001, peerASN: 64601, peerAddress: 192.0.2.2, bfdProfile: fast}
			status: {conditions: [{type: Valid, status: "False", reason: BFDProfileNotFound, message: there is no BFDProfile, lastTransitionTime: "2026-01-02T03:04:05Z"}]}`,
			`Address=192.0.2.2 ASN=64601 MyASN=4200000001 BFDProfile=fast Valid=False Reason=BFDProfileNotFound Message=there is no BFDProfile`},
		{"a peer to be found", "BGPPeer", `spec: {myASN: 64512, dynamicASN: external, peerAddressFrom: {defaultGateway: IPv4}}`,
			`MyASN=64512 AddressFrom={"defaultGateway":"IPv4"} DynamicASN=external`},
		{"a peer at an interface", "BGPPeer", `spec: {myASN: 64512, dynamicASN: external, interface: eth1, nodeSelectors: [{matchLabels: {rack: a}}]}`,
			`MyASN=64512 Interface=eth1 DynamicASN=external NodeSelectors=[{"matchLabels":{"rack":"a"}}]`},
		{"an advertisement", "BGPAdvertisement", `
			spec: {ipAddressPools: [a, b], peers: [tor-1, tor-2], communities: [no-export, "65000:1"], localPref: 4294967295, aggregationLength: 24}`,
			`Pools=["a","b"] Peers=["tor-1","tor-2"] Communities=["no-export","65000:1"] LocalPref=4294967295 IPv4Length=24`},
		{"an advertisement of everything", "BGPAdvertisement", `spec: {}`, ``},
		{"a profile", "BFDProfile", `spec: {transmitInterval: 100}`,
			`TransmitInterval=100 ReceiveInterval=300 Multiplier=3 PassiveMode=false MinimumTTL=254`},
		{"communities", "Community", `spec: {communities: [{name: a, value: "65000:1"}, {name: b, value: "65000:2"}]}`,
			`Communities=[{"name":"a","value":"65000:1"},{"name":"b","value":"65000:2"}]`},
		{"a session", "BGPSession", `
			status: {node: node-1, peer: tor-1, address: 192.0.2.2, localAddress: 192.0.2.11, peerASN: 4294967295, state: Established, announcedPrefixes: 2001, bfd: {state: Up}}`,
			`Node=node-1 Peer=tor-1 Address=192.0.2.2 State=Established Prefixes=2001 BFD=Up Local=192.0.2.11`},
		{"a session that a node can't have", "BGPSession", `
			status: {node: node-1, peer: tor-1, state: Refused, reason: NoPassword, lastError: "there is no Secret", announcedPrefixes: 0}`,
			`Node=node-1 Peer=tor-1 State=Refused Prefixes=0 LastError=there is no Secret Reason=NoPassword`},
		{"an announcement", "ServiceAnnouncement", `
			status: {service: web, node: node-1, layer2: {addresses: [192.0.2.100]}, bgp: {prefixes: [192.0.2.0/24, 192.0.2.100/32], peers: [tor-1, tor-2]}}`,
			`Service=web Node=node-1 Layer2=["192.0.2.100"] BGP=["192.0.2.0/24","192.0.2.100/32"] Peers=["tor-1","tor-2"]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object := map[string]any{}
			if err := yaml.Unmarshal([]byte(strings.ReplaceAll(tc.object, "\t", "")), &object); err != nil {
				t.Fatal(err)
			}
			object["apiVersion"], object["kind"], object["metadata"] = "steelyard.io/v1beta1", tc.kind, map[string]any{"name": "x"}
			integers(object)
			if answer := crds[tc.kind].admit(t, object); answer != "" {
				t.Fatal(answer)
			}
			if got := crds[tc.kind].row(t, object); got != tc.want {
				t.Errorf("kubectl get shows\n\t%s, want\n\t%s", got, tc.want)
			}
		})
	}
}

// TestPoolFitsTheScreen: the pool's line is the one that operators look at first.
func TestPoolFitsTheScreen(t *testing.T) {
	const gap, name = 3, len("a-pool-name")
	width := name
	for _, c := range loadCRDs(t)["IPAddressPool"].columns {
		if c.Priority > 0 {
			continue
		}
		longest := len(c.Name)
		if c.Name == "IPv6 Free" {
			longest = max(longest, len(strconv.Itoa(math.MaxInt64)))
		}
		width += gap + longest
	}
	if width > 120 {
		t.Errorf("kubectl get ipaddresspools is %d columns wide", width)
	}
}

// row returns what is in the columns that are not empty.
func (c *crd) row(t *testing.T, object map[string]any) string {
	t.Helper()
	convertor, err := tableconvertor.New(c.columns)
	if err != nil {
		t.Fatal(err)
	}
	table, err := convertor.ConvertToTable(t.Context(), &unstructured.Unstructured{Object: object}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var cells []string
	for i, cell := range table.Rows[0].Cells {
		name := strings.ReplaceAll(table.ColumnDefinitions[i].Name, " ", "")
		if cell != nil && cell != "" && name != "Name" && name != "Age" && name != "Since" {
			cells = append(cells, fmt.Sprintf("%s=%v", name, cell))
		}
	}
	return strings.Join(cells, " ")
}
