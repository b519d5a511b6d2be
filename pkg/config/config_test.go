package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// resources reads the objects of a case, one to a line:
//
//	pool|bgpad|community <name> <age in minutes> <spec>
//	ad|peer|bfd <name> <spec>
//	node <name> <label=value,... or -> <addresses>
//	secret <name> <type> <password, with \n for a line break, or '' for an empty one>
//
// Secrets and nodes are known when there is one.
func resources(t *testing.T, text string) Resources {
	t.Helper()
	r := Resources{Namespace: "steelyard"}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		name, rest, _ := strings.Cut(rest, " ")
		meta := metav1.ObjectMeta{Name: name}
		switch kind {
		case "pool":
			pool := v1beta1.IPAddressPool{ObjectMeta: aged(t, meta, &rest)}
			if strings.HasPrefix(name, "dmz") {
				pool.Labels = map[string]string{"network": "dmz"}
			}
			mustUnmarshal(t, rest, &pool.Spec)
			r.Pools = append(r.Pools, pool)
		case "ad":
			ad := v1beta1.L2Advertisement{ObjectMeta: meta}
			mustUnmarshal(t, rest, &ad.Spec)
			r.L2Advertisements = append(r.L2Advertisements, ad)
		case "bgpad":
			ad := v1beta1.BGPAdvertisement{ObjectMeta: aged(t, meta, &rest)}
			mustUnmarshal(t, rest, &ad.Spec)
			r.BGPAdvertisements = append(r.BGPAdvertisements, ad)
		case "peer":
			peer := v1beta1.BGPPeer{ObjectMeta: meta}
			mustUnmarshal(t, rest, &peer.Spec)
			r.BGPPeers = append(r.BGPPeers, peer)
		case "bfd":
			profile := v1beta1.BFDProfile{ObjectMeta: meta}
			mustUnmarshal(t, rest, &profile.Spec)
			r.BFDProfiles = append(r.BFDProfiles, profile)
		case "community":
			community := v1beta1.Community{ObjectMeta: aged(t, meta, &rest)}
			mustUnmarshal(t, rest, &community.Spec)
			r.Communities = append(r.Communities, community)
		case "secret":
			typ, password, ok := strings.Cut(rest, " ")
			secret := corev1.Secret{ObjectMeta: meta, Type: corev1.SecretType(typ)}
			if ok {
				secret.Data = map[string][]byte{"password": []byte(strings.NewReplacer(`\n`, "\n", "''", "").Replace(password))}
			}
			if r.Secrets == nil {
				r.Secrets = map[string]corev1.Secret{}
			}
			r.Secrets[name] = secret
		case "node":
			text, addresses, _ := strings.Cut(rest, " ")
			node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: set(t, strings.TrimPrefix(text, "-"))}}
			for _, a := range strings.Fields(addresses) {
				node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
			}
			r.Nodes = append(r.Nodes, node)
		default:
			t.Fatalf("no such object: %s", line)
		}
	}
	return r
}

// aged takes the age from the beginning of the rest of a line.
func aged(t *testing.T, meta metav1.ObjectMeta, rest *string) metav1.ObjectMeta {
	t.Helper()
	age, spec, _ := strings.Cut(*rest, " ")
	minutes, err := time.ParseDuration(age + "m")
	if err != nil {
		t.Fatal(err)
	}
	*rest = spec
	meta.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-minutes))
	return meta
}

func mustUnmarshal(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func set(t *testing.T, text string) labels.Set {
	t.Helper()
	s, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// summary is a line for each object that is in use: what the programs work with.
func summary(cfg *Config) []string {
	var out []string
	for _, p := range cfg.Pools {
		out = append(out, fmt.Sprintf("pool %s %v", p.Name, p.Ranges))
	}
	for _, a := range cfg.L2Advertisements {
		out = append(out, fmt.Sprintf("ad %s %v", a.Name, a.Pools))
	}
	for _, a := range cfg.BGPAdvertisements {
		out = append(out, fmt.Sprintf("bgpad %s %v to %v", a.Name, a.Pools, a.Peers))
	}
	for _, p := range cfg.BGPPeers {
		out = append(out, fmt.Sprintf("peer %s", p.Name))
	}
	return out
}

// parseCase is what comes of some resources.
type parseCase struct {
	name      string
	resources string
	want      []string // summary
	faults    []string // "name field reason: part of the message", after "warning" where it is one
}

func (tc parseCase) run(t *testing.T) {
	cfg, faults := Parse(resources(t, tc.resources))
	if diff := cmp.Diff(tc.want, summary(cfg)); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if len(faults) != len(tc.faults) {
		t.Fatalf("faults:\n%v\nwant:\n%v", faults, tc.faults)
	}
	for i, f := range faults {
		where, message, _ := strings.Cut(tc.faults[i], ": ")
		got := fmt.Sprintf("%s %s %s", f.Name, f.Field, f.Reason)
		if f.Warning {
			got = "warning " + got
		}
		if got != where || !strings.Contains(f.Message, message) {
			t.Errorf("fault %d is\n\t%s: %s, want\n\t%s", i, got, f.Message, tc.faults[i])
		}
		if (f.Type == ConditionNodeAddressInPool) != (f.Reason == ReasonNodeAddressInPool) {
			t.Errorf("fault %d: Type is %s", i, f.Type)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []parseCase{
		{name: "nothing"},
		{
			name:      "pools are sorted by name, ranges by address",
			resources: `pool b 1 {addresses: ["2001:db8::/120", 192.0.2.128/25, 10.0.0.0/30]}` + "\n" + `pool a 2 {addresses: [192.0.2.0/25]}`,
			want: []string{
				"pool a [192.0.2.0-192.0.2.127]",
				"pool b [10.0.0.0-10.0.0.3 192.0.2.128-192.0.2.255 2001:db8::-2001:db8::ff]",
			},
		},
		{
			name:      "ranges that touch are one",
			resources: `pool a 1 {addresses: [192.0.2.128/25, 192.0.2.0/25, 255.255.255.255/32, "::/128"]}`,
			want:      []string{"pool a [192.0.2.0-192.0.2.255 255.255.255.255-255.255.255.255 ::-::]"},
		},
		{
			name:      "a malformed entry is left out and the rest works",
			resources: `pool a 1 {addresses: [nonsense, 192.0.2.9-192.0.2.1, 192.0.2.0/30]}`,
			want:      []string{"pool a [192.0.2.0-192.0.2.3]"},
			faults: []string{
				"a spec.addresses[0] MalformedRange: write a CIDR",
				"a spec.addresses[1] MalformedRange: write 192.0.2.1-192.0.2.9",
			},
		},
		{
			name:      "a range twice in one pool",
			resources: `pool a 1 {addresses: [192.0.2.0-192.0.2.9, 192.0.2.5 - 192.0.2.20]}`,
			want:      []string{"pool a [192.0.2.0-192.0.2.20]"},
			faults:    []string{"a spec.addresses[1] DuplicateRange: 192.0.2.5-192.0.2.9 is also in spec.addresses[0]"},
		},
		{
			name:      "the older pool keeps what two have, the younger the rest",
			resources: `pool a 1 {addresses: [192.0.2.0/24]}` + "\n" + `pool z 5 {addresses: [192.0.2.16/28, 192.0.2.250-192.0.3.5]}`,
			want: []string{
				"pool a [192.0.2.0-192.0.2.15 192.0.2.32-192.0.2.249]",
				"pool z [192.0.2.16-192.0.2.31 192.0.2.250-192.0.3.5]",
			},
			faults: []string{
				`a spec.addresses[0] OverlappingPools: 192.0.2.16-192.0.2.31 belongs to the older pool "z" (spec.addresses[0] there)`,
				`a spec.addresses[0] OverlappingPools: 192.0.2.250-192.0.2.255 belongs to the older pool "z" (spec.addresses[1] there)`,
			},
		},
		{
			name:      "of pools of one age the first by name keeps",
			resources: `pool b 1 {addresses: [192.0.2.0/30]}` + "\n" + `pool a 1 {addresses: [192.0.2.0/30]}`,
			want:      []string{"pool a [192.0.2.0-192.0.2.3]", "pool b []"},
			faults:    []string{`b spec.addresses[0] OverlappingPools: 192.0.2.0-192.0.2.3 belongs to the older pool "a"`},
		},
		{
			name: "overlap up to the last address there is",
			resources: `pool a 2 {addresses: ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124"]}` + "\n" +
				`pool b 1 {addresses: ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"]}`,
			want: []string{
				"pool a [ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
				"pool b [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffef]",
			},
			faults: []string{`b spec.addresses[0] OverlappingPools: belongs to the older pool "a"`},
		},
		{
			name: "a node's own address is a warning and stays in the pool",
			resources: `pool a 1 {addresses: [192.0.2.0/24, "2001:db8::/64"]}` + "\n" +
				"node n1 - 192.0.2.11 192.0.2.11 2001:db8::11 n1.example\nnode n2 - 192.0.2.12\nnode n3 - 198.51.100.1",
			want:   []string{"pool a [192.0.2.0-192.0.2.255 2001:db8::-2001:db8::ffff:ffff:ffff:ffff]"},
			faults: []string{"warning a spec.addresses NodeAddressInPool: own addresses 192.0.2.11 (node n1), 192.0.2.12 (node n2), 2001:db8::11 (node n1)"},
		},
		{
			name: "pools by name and by label, each once",
			resources: `pool dmz-1 1 {addresses: [192.0.2.0/30]}` + "\n" + `pool dmz-2 1 {addresses: [192.0.2.4/30]}` + "\n" +
				`pool lan 1 {addresses: [192.0.2.8/30]}` + "\n" + `pool other 1 {addresses: [192.0.2.12/30]}` + "\n" +
				`ad all {}` + "\n" + `ad names {ipAddressPools: [other, lan]}` + "\n" +
				`ad both {ipAddressPools: [dmz-2, lan], ipAddressPoolSelectors: [{matchLabels: {network: dmz}}]}`,
			want: []string{
				"pool dmz-1 [192.0.2.0-192.0.2.3]", "pool dmz-2 [192.0.2.4-192.0.2.7]",
				"pool lan [192.0.2.8-192.0.2.11]", "pool other [192.0.2.12-192.0.2.15]",
				"ad all [dmz-1 dmz-2 lan other]", "ad both [dmz-1 dmz-2 lan]", "ad names [lan other]",
			},
		},
		{
			name:      "an unknown pool is named and the known one works",
			resources: `pool lan 1 {addresses: [192.0.2.0/30]}` + "\n" + `ad a {ipAddressPools: [lan, Lan]}` + "\n" + `ad b {ipAddressPools: [ghost]}`,
			want:      []string{"pool lan [192.0.2.0-192.0.2.3]", "ad a [lan]", "ad b []"},
			faults: []string{
				`a spec.ipAddressPools[1] PoolNotFound: there is no IPAddressPool "Lan": create it`,
				`b spec.ipAddressPools[0] PoolNotFound: there is no IPAddressPool "ghost": create it`,
			},
		},
		{
			name:      "a pool without a usable address is still a pool",
			resources: `pool lan 1 {addresses: [nonsense]}` + "\n" + `ad a {ipAddressPools: [lan]}`,
			want:      []string{"pool lan []", "ad a [lan]"},
			faults:    []string{"lan spec.addresses[0] MalformedRange: write a CIDR"},
		},
		{
			name:      "selectors that match no pool",
			resources: `pool lan 1 {addresses: [192.0.2.0/30]}` + "\n" + `ad a {ipAddressPoolSelectors: [{matchLabels: {network: dmz}}]}`,
			want:      []string{"pool lan [192.0.2.0-192.0.2.3]", "ad a []"},
			faults:    []string{"a spec.ipAddressPoolSelectors NoPoolSelected: no IPAddressPool matches network=dmz"},
		},
		{
			name:      "no pool at all",
			resources: `ad a {}`,
			want:      []string{"ad a []"},
			faults:    []string{"a spec.ipAddressPools NoPoolSelected: create one"},
		},
		{
			name: "a node that doesn't exist",
			resources: `pool lan 1 {addresses: [192.0.2.0/30]}` + "\n" + "node n1 kubernetes.io/hostname=n1\n" +
				`ad a {nodeSelectors: [{matchLabels: {kubernetes.io/hostname: ghost}}, {matchLabels: {role: edge}}]}` + "\n" +
				`ad b {nodeSelectors: [{matchLabels: {kubernetes.io/hostname: n1}}]}`,
			want:   []string{"pool lan [192.0.2.0-192.0.2.3]", "ad a [lan]", "ad b [lan]"},
			faults: []string{"a spec.nodeSelectors NoNodeSelected: no node matches kubernetes.io/hostname=ghost or role=edge"},
		},
		{
			name:      "nodes that are not known are not judged",
			resources: `pool lan 1 {addresses: [192.0.2.0/30]}` + "\n" + `ad a {nodeSelectors: [{matchLabels: {role: edge}}]}`,
			want:      []string{"pool lan [192.0.2.0-192.0.2.3]", "ad a [lan]"},
		},
		{
			name: "malformed selectors are named, wherever they stand",
			resources: `pool lan 1 {addresses: [192.0.2.0/30], serviceAllocation: {namespaceSelectors: [{matchLabels: {a b: c}}], serviceSelectors: [{matchExpressions: [{key: a, operator: Is}]}]}}` + "\n" +
				`ad a {nodeSelectors: [{}, {matchExpressions: [{key: a, operator: In}]}], serviceSelectors: [{matchLabels: {a: b c}}], preferredNodeSelectors: [{weight: 5, preference: {matchLabels: {-: x}}}], ipAddressPoolSelectors: [{matchExpressions: [{key: a, operator: Exists, values: [x]}]}, {}]}`,
			want: []string{"pool lan [192.0.2.0-192.0.2.3]", "ad a [lan]"},
			faults: []string{
				"lan spec.serviceAllocation.namespaceSelectors[0] MalformedSelector: matches nothing until it is mended",
				"lan spec.serviceAllocation.serviceSelectors[0] MalformedSelector: matches nothing until it is mended",
				"a spec.nodeSelectors[1] MalformedSelector: matches nothing until it is mended",
				"a spec.serviceSelectors[0] MalformedSelector: matches nothing until it is mended",
				"a spec.preferredNodeSelectors[0].preference MalformedSelector: matches nothing until it is mended",
				"a spec.ipAddressPoolSelectors[0] MalformedSelector: matches nothing until it is mended",
			},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}

func TestPoolFields(t *testing.T) {
	cfg, _ := Parse(resources(t, `pool dmz-1 1 {addresses: [192.0.2.0/30]}
		pool b 1 {addresses: [192.0.2.4/30], autoAssign: false, avoidBuggyIPs: true, serviceAllocation: {priority: 7, namespaces: [shop]}}`))
	dmz, b := cfg.Pool("dmz-1"), cfg.Pool("b")
	if !dmz.AutoAssign || dmz.AvoidBuggyIPs || dmz.Allocation != nil || dmz.Labels["network"] != "dmz" {
		t.Errorf("defaults: %+v", dmz)
	}
	if b.AutoAssign || !b.AvoidBuggyIPs || b.Allocation.Priority != 7 || !slices.Equal(b.Allocation.Namespaces, []string{"shop"}) {
		t.Errorf("all set: %+v", b)
	}
}

func TestPoolOf(t *testing.T) {
	cfg, _ := Parse(resources(t, `pool a 1 {addresses: [192.0.2.0/30, 192.0.2.10-192.0.2.20, "2001:db8::/64"]}
		pool b 1 {addresses: [192.0.2.5-192.0.2.9]}`))
	for addr, want := range map[string]string{
		"192.0.2.0": "a", "192.0.2.3": "a", "192.0.2.4": "", "192.0.2.5": "b", "192.0.2.9": "b", "192.0.2.10": "a", "192.0.2.20": "a",
		"192.0.2.21": "", "2001:db8::": "a", "2001:db8::ffff:0:0:0": "a", "2001:db8:0:1::": "", "::": "", "255.255.255.255": "",
	} {
		got := ""
		if p := cfg.PoolOf(netip.MustParseAddr(addr)); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("PoolOf(%s) is %q, want %q", addr, got, want)
		}
	}
	if p := cfg.Pool("c"); p != nil {
		t.Errorf("Pool(c) is %v", p)
	}
}
