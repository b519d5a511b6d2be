package v1beta1_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

func TestBGPPeerSchema(t *testing.T) {
	peers := loadCRDs(t)["BGPPeer"]
	const to = `myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1` // a whole peer, to add one thing to
	with := func(fields string) string { return "{" + to + ", " + fields + "}" }
	address := func(a string) string { return `{myASN: 64512, peerASN: 64513, peerAddress: "` + a + `"}` }
	source := func(peer, source string) string {
		return `{myASN: 64512, peerASN: 64513, peerAddress: "` + peer + `", sourceAddress: "` + source + `"}`
	}
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"least", "{" + to + "}", ""},
		{"largest AS numbers", `{myASN: 4294967295, peerASN: 4294967294, localASN: 4294967293, peerAddress: 192.0.2.1}`, ""},
		{"own AS number missing", `{peerASN: 64513, peerAddress: 192.0.2.1}`, "spec.myASN: Required value"},
		{"own AS number 0", `{myASN: 0, peerASN: 64513, peerAddress: 192.0.2.1}`, "spec.myASN in body should be greater than or equal to 1"},
		{"peer's AS number 0", `{myASN: 64512, peerASN: 0, peerAddress: 192.0.2.1}`, "spec.peerASN in body should be greater than or equal to 1"},
		{"local AS number 0", with(`localASN: 0`), "spec.localASN in body should be greater than or equal to 1"},
		{"own AS number above 32 bits", `{myASN: 4294967296, peerASN: 64513, peerAddress: 192.0.2.1}`, "spec.myASN in body should be less than or equal to 4294967295"},
		{"peer's AS number above 32 bits", `{myASN: 64512, peerASN: 4294967296, peerAddress: 192.0.2.1}`, "spec.peerASN in body should be less than or equal to 4294967295"},
		{"local AS number above 32 bits", with(`localASN: 4294967296`), "spec.localASN in body should be less than or equal to 4294967295"},
		{"AS number of two halves", `{myASN: "1.10", peerASN: 64513, peerAddress: 192.0.2.1}`, "spec.myASN in body must be of type integer"},
		{"dynamic AS number", `{myASN: 64512, dynamicASN: external, peerAddress: 192.0.2.1}`, ""},
		{"dynamic AS number of our own", `{myASN: 64512, dynamicASN: internal, peerAddress: 192.0.2.1}`, ""},
		{"dynamic AS number of another kind", `{myASN: 64512, dynamicASN: auto, peerAddress: 192.0.2.1}`, `spec.dynamicASN: Unsupported value: "auto": supported values: "internal", "external"`},
		{"no AS number", `{myASN: 64512, peerAddress: 192.0.2.1}`, "the AS number of the peer is missing: set peerASN, or dynamicASN to internal or external"},
		{"both AS numbers", with(`dynamicASN: external`), "peerASN and dynamicASN are both set: keep one of the two"},

		{"IPv6", address("2001:db8::1"), ""},
		{"link-local with its interface", address("fe80::1%eth0"), ""},
		{"IPv4 link-local", address("169.254.1.1"), ""},
		{"loopback", address("127.0.0.1"), ""},
		{"name", address("router-1"), `"router-1" is no IP address: write one such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0`},
		{"address empty", address(""), `"" is no IP address`},
		{"address with a space", address(" 192.0.2.1"), `" 192.0.2.1" is no IP address`},
		{"address with a port", address("192.0.2.1:179"), `"192.0.2.1:179" is no IP address`},
		{"network", address("192.0.2.0/24"), `"192.0.2.0/24" is no IP address`},
		{"IPv4 in IPv6", address("::ffff:192.0.2.1"), `"::ffff:192.0.2.1" is no IP address`},
		{"address of 65 characters", address(strings.Repeat("1", 65)), "spec.peerAddress: Too long"},
		{"link-local without its interface", address("fe80::1"), "fe80::1 is a link-local address, and nothing says at which interface: write fe80::1%eth0 with the name of the interface"},
		{"link-local in a VRF", `{myASN: 64512, peerASN: 64513, peerAddress: "fe80::1", vrf: eth0}`, ""},
		{"interface of a global address", address("2001:db8::1%eth0"), `"2001:db8::1%eth0" has an interface that can not be: only a link-local IPv6 address has one`},
		{"interface of an IPv4 address", address("192.0.2.1%eth0"), `"192.0.2.1%eth0" has an interface that can not be`},
		{"zone empty", address("fe80::1%"), `"fe80::1%" has an interface that can not be`},
		{"zone of 16 characters", address("fe80::1%abcdefghijklmnop"), "its name has 15 characters at most, as in fe80::1%eth0"},
		{"two zones", address("fe80::1%a%b"), `"fe80::1%a%b" has an interface that can not be`},
		{"unspecified", address("0.0.0.0"), "0.0.0.0 is the address of no single host: write that of the router"},
		{"IPv6 unspecified", address("::"), ":: is the address of no single host: write that of the router"},
		{"multicast", address("224.0.0.1"), "224.0.0.1 is the address of no single host: write that of the router"},
		{"broadcast", address("255.255.255.255"), "255.255.255.255 is the address of no single host"},
		{"link-local multicast", address("ff02::1%eth0"), `"ff02::1%eth0" has an interface that can not be`},

		{"from the default gateway", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: IPv4}}`, ""},
		{"from the IPv6 default gateway", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: IPv6}}`, ""},
		{"from an annotation", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {nodeAnnotation: example.com/top-of-rack}}`, ""},
		{"from nothing", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {}}`, "spec.peerAddressFrom: Invalid value: says nothing: set defaultGateway or nodeAnnotation"},
		{"from two", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: IPv4, nodeAnnotation: a}}`, "defaultGateway and nodeAnnotation are both set: keep one of the two"},
		{"from a gateway of another family", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: ipv4}}`, `supported values: "IPv4", "IPv6"`},
		{"from an annotation with a space", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {nodeAnnotation: my router}}`, `"my router" is no name of an annotation: write one such as example.com/top-of-rack`},
		{"from an annotation without a name", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {nodeAnnotation: ""}}`, `"" is no name of an annotation`},
		{"at an interface", `{myASN: 64512, dynamicASN: external, interface: eth1}`, ""},
		{"at no interface", `{myASN: 64512, dynamicASN: external, interface: ""}`, `"" is no name of an interface: write one name`},
		{"at an interface as ip link prints it", `{myASN: 64512, dynamicASN: external, interface: eth0@if12}`, `"eth0@if12" is no name of an interface: write one name, of 15 characters at most, without the part from the @ that ip link shows`},
		{"nowhere", `{myASN: 64512, peerASN: 64513}`, "nothing says where the peer is: set peerAddress, peerAddressFrom or interface"},
		{"at an address and an interface", with(`interface: eth1`), "of peerAddress, peerAddressFrom and interface more than one is set: keep one of them"},
		{"at an address and from the gateway", with(`peerAddressFrom: {defaultGateway: IPv4}`), "of peerAddress, peerAddressFrom and interface more than one is set"},

		{"highest port", with(`peerPort: 65535`), ""},
		{"port 0", with(`peerPort: 0`), "spec.peerPort in body should be greater than or equal to 1"},
		{"port above 16 bits", with(`peerPort: 65536`), "spec.peerPort in body should be less than or equal to 65535"},
		{"source address", with(`sourceAddress: 192.0.2.11`), ""},
		{"link-local source address", source("fe80::1%eth0", "fe80::2%eth0"), ""},
		{"source address that is none", with(`sourceAddress: eth0`), `spec.sourceAddress: Invalid value: "eth0": "eth0" is no IP address`},
		{"source address with an interface", with(`sourceAddress: 192.0.2.11%eth0`), `"192.0.2.11%eth0" has an interface that can not be`},
		{"source address unspecified", with(`sourceAddress: 0.0.0.0`), "0.0.0.0 is the address of no single host: write one that the node has"},
		{"source address of the other family", source("192.0.2.1", "2001:db8::2"), "spec.sourceAddress: Invalid value: 2001:db8::2 is of another family than the address of the peer: write one of the same family, or leave it out"},
		{"source address of the other family than the link-local one", source("fe80::1%eth0", "192.0.2.2"), "192.0.2.2 is of another family than the address of the peer"},
		{"source address of the other family than the gateway", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: IPv6}, sourceAddress: 192.0.2.2}`, "192.0.2.2 is of another family"},
		{"source address of the gateway's family", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {defaultGateway: IPv4}, sourceAddress: 192.0.2.2}`, ""},
		{"source address for whatever an annotation says", `{myASN: 64512, peerASN: 64513, peerAddressFrom: {nodeAnnotation: tor}, sourceAddress: "2001:db8::2"}`, ""},
		{"source address of IPv4 without addresses on the wire", `{myASN: 64512, dynamicASN: external, interface: eth1, sourceAddress: 192.0.2.2}`, "192.0.2.2 is of another family"},
		{"source address is the peer's", source("192.0.2.1", "192.0.2.1"), "spec.sourceAddress: Invalid value: 192.0.2.1 is the address of the peer, too: write one that the node has, or leave it out"},
		{"source address is the peer's in other words", source("2001:db8::1", "2001:db8:0::1"), "2001:db8:0::1 is the address of the peer, too"},
		{"VRF", with(`vrf: blue`), ""},
		{"VRF with a space", with(`vrf: "blue 1"`), `"blue 1" is no name of a VRF or an interface: write one name`},

		{"timers", with(`holdTime: 9s, keepaliveTime: 3s, connectTime: 1s, gracefulRestartTime: 2m, gracefulShutdown: 10s`), ""},
		{"longest timers", with(`holdTime: 65535s, keepaliveTime: 21845s, connectTime: 65535s, gracefulRestartTime: 4095s, gracefulShutdown: 20s`), ""},
		{"timers as Go prints them", with(`holdTime: 1h0m0s, keepaliveTime: 1m30s`), ""},
		{"no timers", with(`holdTime: 0s, keepaliveTime: 0s, gracefulShutdown: 0s`), ""},
		{"no timers, without a unit", with(`holdTime: "0", keepaliveTime: "0"`), ""},
		{"hold time 0 alone", with(`holdTime: 0s`), ""},
		{"keepalive time alone", with(`keepaliveTime: 60s`), ""},
		{"hold time 1s", with(`holdTime: 1s`), `spec.holdTime: Invalid value: "1s": "1s" is no hold time: write 0 for never, or whole seconds from 3s to 65535s, such as 90s or 1m30s`},
		{"hold time 2s", with(`holdTime: 2s`), `"2s" is no hold time`},
		{"hold time above 16 bits", with(`holdTime: 65536s`), `"65536s" is no hold time`},
		{"hold time of half seconds", with(`holdTime: 3.5s`), `"3.5s" is no hold time`},
		{"hold time in milliseconds", with(`holdTime: 3500ms`), `"3500ms" is no hold time`},
		{"hold time below 0", with(`holdTime: -90s`), `"-90s" is no hold time`},
		{"hold time without a unit", with(`holdTime: "90"`), `"90" is no hold time`},
		{"hold time that is a number", with(`holdTime: 90`), "spec.holdTime in body must be of type string"},
		{"hold time empty", with(`holdTime: ""`), `"" is no hold time`},
		{"keepalive above hold", with(`holdTime: 9s, keepaliveTime: 10s`), "spec.keepaliveTime: Invalid value: keepaliveTime 10s is above holdTime 9s: write a third of holdTime, or leave it out"},
		{"keepalive above hold in other units", with(`holdTime: 1m, keepaliveTime: 61s`), "keepaliveTime 61s is above holdTime 1m"},
		{"keepalive without hold", with(`holdTime: 0s, keepaliveTime: 3s`), "keepaliveTime 3s is above holdTime 0s"},
		{"hold without keepalive", with(`holdTime: 9s, keepaliveTime: 0s`), "spec.keepaliveTime: Invalid value: keepaliveTime is 0 and holdTime is not, so the session would end for want of keepalives: set holdTime to 0, too, or leave keepaliveTime out"},
		{"keepalive 0 alone", with(`keepaliveTime: 0s`), "keepaliveTime is 0 and holdTime is not"},
		{"keepalive above 16 bits", with(`keepaliveTime: 65536s`), `"65536s" is no keepalive time: write whole seconds from 1s to 65535s, or 0 with a holdTime of 0, such as 30s`},
		{"keepalive of half seconds", with(`keepaliveTime: 500ms`), `"500ms" is no keepalive time`},
		{"connect time 0", with(`connectTime: 0s`), `"0s" is no connect time: write whole seconds from 1s to 65535s, such as 10s`},
		{"connect time of half seconds", with(`connectTime: 1.5s`), `"1.5s" is no connect time`},
		{"connect time above 16 bits", with(`connectTime: 65536s`), `"65536s" is no connect time`},
		{"restart time 0", with(`gracefulRestartTime: 0s`), `"0s" is no graceful restart time: write whole seconds from 1s to 4095s, such as 120s or 2m`},
		{"restart time above 12 bits", with(`gracefulRestartTime: 4096s`), `"4096s" is no graceful restart time`},
		{"shutdown above 20s", with(`gracefulShutdown: 21s`), `"21s" is no graceful shutdown time: write whole seconds from 0s to 20s, such as 10s`},

		{"router ID", with(`routerID: 192.0.2.11`), ""},
		{"router ID is IPv6", with(`routerID: "2001:db8::1"`), `"2001:db8::1" is no router ID: write an IPv4 address such as 192.0.2.11, also if the nodes have IPv6 only`},
		{"router ID is a number", with(`routerID: "17"`), `"17" is no router ID`},
		{"router ID 0", with(`routerID: 0.0.0.0`), `"0.0.0.0" is no router ID`},

		{"password", with(`password: "` + strings.Repeat("x", 80) + `"`), ""},
		{"password empty", with(`password: ""`), "spec.password in body should be at least 1 chars long"},
		{"password of 81 bytes", with(`password: "` + strings.Repeat("x", 81) + `"`), "spec.password: Too long: may not be more than 80 bytes"},
		{"password of 82 bytes in 41 characters", with(`password: "` + strings.Repeat("ß", 41) + `"`), "the password is too long: the kernel takes 80 bytes, and a character that is not ASCII is several"},
		{"password in a Secret", with(`passwordSecret: {name: router-1}`), ""},
		{"password in a Secret of a namespace", with(`passwordSecret: {name: router-1, namespace: steelyard-system}`), ""},
		{"Secret without a name", with(`passwordSecret: {}`), "spec.passwordSecret.name: Required value"},
		{"Secret with capitals", with(`passwordSecret: {name: Router}`), `"Router" is no name of a Secret: write it in lower case, with letters, digits, dashes and dots`},
		{"Secret of a namespace with capitals", with(`passwordSecret: {name: router, namespace: Steelyard}`), `"Steelyard" is no name of a namespace: leave it out; the Secret is in the namespace of the installation`},
		{"two passwords", with(`password: x, passwordSecret: {name: router-1}`), "password and passwordSecret are both set: keep one of the two"},
		{"profile", with(`bfdProfile: fast`), ""},
		{"profile with capitals", with(`bfdProfile: Fast`), `"Fast" is no name of a BFDProfile: write it in lower case`},

		{"multihop", with(`ebgpMultiHop: true`), ""},
		{"multihop to any other AS", `{myASN: 64512, dynamicASN: external, peerAddress: 192.0.2.1, ebgpMultiHop: true}`, ""},
		{"multihop with another local AS", `{myASN: 64512, peerASN: 64512, localASN: 64513, peerAddress: 192.0.2.1, ebgpMultiHop: true}`, ""},
		{"no multihop to our own AS", `{myASN: 64512, peerASN: 64512, peerAddress: 192.0.2.1, ebgpMultiHop: false}`, ""},
		{"multihop to our own AS", `{myASN: 64512, peerASN: 64512, peerAddress: 192.0.2.1, ebgpMultiHop: true}`, "spec.ebgpMultiHop: Invalid value: ebgpMultiHop is for peers of another AS, and this one is of our own: leave it out; iBGP sessions may have routers between them anyway"},
		{"multihop to our own AS by localASN", with(`localASN: 64513, ebgpMultiHop: true`), "this one is of our own"},
		{"multihop to our own AS, whatever it is", `{myASN: 64512, dynamicASN: internal, peerAddress: 192.0.2.1, ebgpMultiHop: true}`, "this one is of our own"},
		{"TTL security", with(`ttlSecurity: 254`), ""},
		{"TTL security off with multihop", with(`ttlSecurity: 0, ebgpMultiHop: true`), ""},
		{"TTL security of 255 hops", with(`ttlSecurity: 255`), "spec.ttlSecurity in body should be less than or equal to 254"},
		{"TTL security with multihop", with(`ttlSecurity: 2, ebgpMultiHop: true`), "spec.ttlSecurity: Invalid value: ttlSecurity and ebgpMultiHop are both set: leave ebgpMultiHop out, and write into ttlSecurity how many hops away the peer is"},

		{"the rest", with(`passive: true, enableGracefulRestart: true, dualStackAddressFamily: true, disableMP: true, nodeSelectors: [{matchLabels: {rack: a}}]`), ""},
		{"unknown field", with(`pasword: x`), "unknown fields: spec.pasword"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, peers, "BGPPeer", tc.spec, tc.want) })
	}
}

// TestSchemaKeepsPasswords demands that no answer quotes a password: answers get into logs and terminals.
func TestSchemaKeepsPasswords(t *testing.T) {
	peers := loadCRDs(t)["BGPPeer"]
	for _, password := range []string{strings.Repeat("secret", 20), strings.Repeat("secretß", 11)} {
		object := map[string]any{
			"apiVersion": "steelyard.io/v1beta1", "kind": "BGPPeer", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{
				"myASN": int64(64512), "peerASN": int64(64513), "peerAddress": "192.0.2.1",
				"password": password, "passwordSecret": map[string]any{"name": "also"},
			},
		}
		if answer := peers.admit(t, object); answer == "" || strings.Contains(answer, "secret") {
			t.Errorf("the answer is %q, want one without the password", answer)
		}
	}
}

func TestBGPAdvertisementSchema(t *testing.T) {
	advertisements := loadCRDs(t)["BGPAdvertisement"]
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"empty", `{}`, ""},
		{"pools", `ipAddressPools: [front, back.office-2]`, ""},
		{"selectors", `{ipAddressPoolSelectors: [{matchLabels: {zone: a}}], nodeSelectors: [{matchLabels: {rack: a}}]}`, ""},
		{"peers", `peers: [tor-1, tor-2]`, ""},
		{"pool with capitals", `ipAddressPools: [Front]`, `"Front" is no name of an IPAddressPool: write it in lower case, with letters, digits, dashes and dots`},
		{"pool twice", `ipAddressPools: [a, a]`, `spec.ipAddressPools[1]: Duplicate value: "a"`},
		{"peer with an underscore", `peers: [tor_1]`, `"tor_1" is no name of a BGPPeer: write it in lower case`},
		{"peer without a name", `peers: [""]`, `"" is no name of a BGPPeer`},
		{"peer twice", `peers: [a, a]`, `spec.peers[1]: Duplicate value: "a"`},

		{"shortest lengths", `{aggregationLength: 1, aggregationLengthV6: 1}`, ""},
		{"longest lengths", `{aggregationLength: 32, aggregationLengthV6: 128}`, ""},
		{"length 0", `aggregationLength: 0`, "spec.aggregationLength in body should be greater than or equal to 1"},
		{"length 33", `aggregationLength: 33`, "spec.aggregationLength in body should be less than or equal to 32"},
		{"IPv6 length 0", `aggregationLengthV6: 0`, "spec.aggregationLengthV6 in body should be greater than or equal to 1"},
		{"IPv6 length 129", `aggregationLengthV6: 129`, "spec.aggregationLengthV6 in body should be less than or equal to 128"},
		{"Services", `serviceSelectors: [{matchLabels: {app: web}}]`, ""},
		{"Services with the default lengths", `{serviceSelectors: [{}], aggregationLength: 32, aggregationLengthV6: 128}`, ""},
		{"no Services with other lengths", `{serviceSelectors: [], aggregationLength: 24}`, ""},
		{"Services with another length", `{serviceSelectors: [{}], aggregationLength: 24}`, "spec.serviceSelectors: Invalid value: serviceSelectors go with single addresses only: leave aggregationLength and aggregationLengthV6 out, or write two advertisements"},
		{"Services with another IPv6 length", `{serviceSelectors: [{}], aggregationLengthV6: 64}`, "serviceSelectors go with single addresses only"},

		{"largest numbers", `{localPref: 4294967295, med: 4294967295, asPathPrepend: 10}`, ""},
		{"least numbers", `{localPref: 0, med: 0, asPathPrepend: 0}`, ""},
		{"localPref below 0", `localPref: -1`, "spec.localPref in body should be greater than or equal to 0"},
		{"localPref above 32 bits", `localPref: 4294967296`, "spec.localPref in body should be less than or equal to 4294967295"},
		{"med below 0", `med: -1`, "spec.med in body should be greater than or equal to 0"},
		{"med above 32 bits", `med: 4294967296`, "spec.med in body should be less than or equal to 4294967295"},
		{"prepending 11 times", `asPathPrepend: 11`, "spec.asPathPrepend in body should be less than or equal to 10"},
		{"prepending less than nothing", `asPathPrepend: -1`, "spec.asPathPrepend in body should be greater than or equal to 0"},
		{"weights", `weightByEndpoints: true`, ""},

		{"communities", `communities: ["65535:65535", "0:0", "large:4294967295:0:1", no-export, vpn-only, NO_ADVERTISE, 2nd.site]`, ""},
		{"community twice", `communities: ["65000:1", no-export, "65000:1"]`, `spec.communities[2]: Duplicate value: "65000:1"`},
		{"community empty", `communities: [""]`, "spec.communities[0] in body should be at least 1 chars long"},
		{"community above 16 bits", `communities: ["65536:1"]`, `"65536:1" is no community, because it has a number above 65535: numbers up to 4294967295 fit into a large one, such as large:65536:1:0`},
		{"second half above 16 bits", `communities: ["1:65536"]`, `"1:65536" is no community, because it has a number above 65535`},
		{"large community above 32 bits", `communities: ["large:1:4294967296:1"]`, `"large:1:4294967296:1" is no community: no number in it may be above 4294967295`},
		{"large community without its word", `communities: ["65000:1:2"]`, `"65000:1:2" is no community: if it is to be a large one, write large:65000:1:2`},
		{"large community of two", `communities: ["large:1:2"]`, `"large:1:2" is no community: write two numbers such as 65000:100, large:65000:1:2, or a name`},
		{"community of letters", `communities: ["65000:web"]`, `"65000:web" is no community`},
		{"community below 0", `communities: ["65000:-1"]`, `"65000:-1" is no community`},
		{"community with a space", `communities: ["65000: 1"]`, `"65000: 1" is no community`},
		{"community of 65 characters", `communities: ["` + strings.Repeat("x", 65) + `"]`, "spec.communities[0]: Too long"},
		{"the community at fault is named", `communities: [no-export, "x y"]`, `spec.communities[1]: Invalid value: "x y": "x y" is no community`},
		{"63 communities", `communities: [` + list(63, `"65000:%d"`) + `]`, ""},
		{"64 communities", `communities: [` + list(64, `"65000:%d"`) + `]`, "spec.communities: Too many: 64: must have at most 63 items"},
		{"unknown field", `localpref: 100`, "unknown fields: spec.localpref"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, advertisements, "BGPAdvertisement", tc.spec, tc.want) })
	}
}

func TestBFDProfileSchema(t *testing.T) {
	profiles := loadCRDs(t)["BFDProfile"]
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"empty", `{}`, ""},
		{"least", `{receiveInterval: 10, transmitInterval: 10, detectMultiplier: 2, echoInterval: 10, minimumTtl: 1}`, ""},
		{"most", `{receiveInterval: 60000, transmitInterval: 60000, detectMultiplier: 255, echoInterval: 60000, minimumTtl: 254}`, ""},
		{"switches", `{passiveMode: true, echoMode: true}`, ""},
		{"receive interval 9", `receiveInterval: 9`, "spec.receiveInterval in body should be greater than or equal to 10"},
		{"receive interval 60001", `receiveInterval: 60001`, "spec.receiveInterval in body should be less than or equal to 60000"},
		{"transmit interval 9", `transmitInterval: 9`, "spec.transmitInterval in body should be greater than or equal to 10"},
		{"transmit interval 60001", `transmitInterval: 60001`, "spec.transmitInterval in body should be less than or equal to 60000"},
		{"multiplier 1", `detectMultiplier: 1`, "spec.detectMultiplier in body should be greater than or equal to 2"},
		{"multiplier 256", `detectMultiplier: 256`, "spec.detectMultiplier in body should be less than or equal to 255"},
		{"echo interval 9", `echoInterval: 9`, "spec.echoInterval in body should be greater than or equal to 10"},
		{"echo interval 60001", `echoInterval: 60001`, "spec.echoInterval in body should be less than or equal to 60000"},
		{"minimum TTL 0", `minimumTtl: 0`, "spec.minimumTtl in body should be greater than or equal to 1"},
		{"minimum TTL 255", `minimumTtl: 255`, "spec.minimumTtl in body should be less than or equal to 254"},
		{"interval with a unit", `receiveInterval: 300ms`, "spec.receiveInterval in body must be of type integer"},
		{"unknown field", `minimumTTL: 254`, "unknown fields: spec.minimumTTL"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, profiles, "BFDProfile", tc.spec, tc.want) })
	}
}

// TestBFDProfileDefaults demands that a profile shows the timers that it has, also one without a spec.
func TestBFDProfileDefaults(t *testing.T) {
	profiles := loadCRDs(t)["BFDProfile"]
	object := map[string]any{"apiVersion": "steelyard.io/v1beta1", "kind": "BFDProfile", "metadata": map[string]any{"name": "x"}}
	if answer := profiles.admit(t, object); answer != "" {
		t.Fatal(answer)
	}
	const want = "map[detectMultiplier:3 echoMode:false minimumTtl:254 passiveMode:false receiveInterval:300 transmitInterval:300]"
	if got := fmt.Sprint(object["spec"]); got != want {
		t.Errorf("the spec is\n\t%s, want\n\t%s", got, want)
	}
}

func TestCommunitySchema(t *testing.T) {
	communities := loadCRDs(t)["Community"]
	alias := func(name, value string) string {
		return fmt.Sprintf(`communities: [{name: %q, value: %q}]`, name, value)
	}
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"empty", `{}`, ""},
		{"standard", alias("vpn-only", "65000:100"), ""},
		{"large", alias("site.2", "large:65000:1:2"), ""},
		{"well-known", alias("stay", "no-export"), ""},
		{"name that begins with a digit and has capitals", alias("2nd_SITE", "65000:2"), ""},
		{"well-known name with its value", alias("no-advertise", "65535:65282"), ""},
		{"well-known name with itself", alias("no-advertise", "no-advertise"), ""},
		{"well-known name with another value", alias("no-export", "65000:1"), `spec.communities[0].name: Invalid value: "no-export" is a well-known name and needs no entry here: leave it out, or choose another name for 65000:1`},
		{"name with a space", alias("vpn only", "65000:1"), `"vpn only" is no name of a community: write letters, digits, dots, dashes and underscores, and begin with a letter or a digit`},
		{"name is a value", alias("65000:1", "65000:1"), `"65000:1" is no name of a community`},
		{"name empty", alias("", "65000:1"), `"" is no name of a community`},
		{"name of 64 characters", alias(strings.Repeat("x", 64), "65000:1"), "spec.communities[0].name: Too long"},
		{"name missing", `communities: [{value: "65000:1"}]`, "spec.communities[0].name: Required value"},
		{"value missing", `communities: [{name: a}]`, "spec.communities[0].value: Required value"},
		{"name twice", `communities: [{name: a, value: "65000:1"}, {name: a, value: "65000:2"}]`, `spec.communities[1]: Duplicate value: {"name":"a"}`},
		{"two names of one value", `communities: [{name: a, value: "65000:1"}, {name: b, value: "65000:1"}]`, ""},
		{"value empty", alias("a", ""), "spec.communities[0].value in body should be at least 1 chars long"},
		{"value with capitals", alias("a", "NO_EXPORT"), `"NO_EXPORT" is no community: write two numbers such as 65000:100, large:65000:1:2, or a well-known name such as no-export`},
		{"value above 16 bits", alias("a", "70000:1"), `"70000:1" is no community, because it has a number above 65535: numbers up to 4294967295 fit into a large one, such as large:70000:1:0`},
		{"large value above 32 bits", alias("a", "large:1:1:4294967296"), `"large:1:1:4294967296" is no community: no number in it may be above 4294967295`},
		{"large value without its word", alias("a", "65000:1:2"), `"65000:1:2" is no community: if it is to be a large one, write large:65000:1:2`},
		{"256 names", `communities: [` + list(256, `{name: a%[1]d, value: "65000:%[1]d"}`) + `]`, ""},
		{"257 names", `communities: [` + list(257, `{name: a%[1]d, value: "65000:%[1]d"}`) + `]`, "spec.communities: Too many: 257: must have at most 256 items"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, communities, "Community", tc.spec, tc.want) })
	}
}

// TestSchemaKnowsWellKnownNames demands that the schema guards the meaning of every name that the programs know.
func TestSchemaKnowsWellKnownNames(t *testing.T) {
	crds := loadCRDs(t)
	for _, name := range bgp.WellKnownNames() {
		c, err := bgp.ParseCommunity(name)
		if err != nil {
			t.Fatal(err)
		}
		value := fmt.Sprintf("%d:%d", c.A, c.B)
		expectAnswer(t, crds["Community"], "Community", fmt.Sprintf(`communities: [{name: %s, value: "%s"}]`, name, value), "")
		expectAnswer(t, crds["Community"], "Community", fmt.Sprintf(`communities: [{name: %s, value: %s}]`, name, name), "")
		expectAnswer(t, crds["Community"], "Community", fmt.Sprintf(`communities: [{name: %s, value: "65000:1"}]`, name), "is a well-known name")
		expectAnswer(t, crds["BGPAdvertisement"], "BGPAdvertisement", "communities: ["+name+"]", "")
	}
}

// TestSchemaAgreesWithParseCommunity demands that the schema lets exactly those values in that the programs can read.
func TestSchemaAgreesWithParseCommunity(t *testing.T) {
	communities := loadCRDs(t)["Community"]
	number := rapid.OneOf(rapid.SampledFrom([]string{"", "0", "007", "65535", "65536", "4294967295", "4294967296", "18446744073709551616", "-1", "+1", "1e3", " 1"}),
		rapid.StringMatching(`[0-9]{1,10}`))
	text := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			prefix := rapid.SampledFrom([]string{"", "", "large:", "large:", "large", "Large:", "ext:"}).Draw(t, "prefix")
			return prefix + strings.Join(rapid.SliceOfN(number, 1, 4).Draw(t, "numbers"), ":")
		}),
		rapid.SampledFrom(bgp.WellKnownNames()),
		rapid.StringMatching(`(no|local|graceful)-[a-z]{0,6}`),
	)
	rapid.Check(t, func(rt *rapid.T) {
		value := text.Draw(rt, "value")
		_, err := bgp.ParseCommunity(value)
		object := map[string]any{
			"apiVersion": "steelyard.io/v1beta1", "kind": "Community", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"communities": []any{map[string]any{"name": "a", "value": value}}},
		}
		if answer := communities.admit(t, object); (answer == "") != (err == nil) {
			rt.Errorf("%q: the schema says %q, ParseCommunity says %v", value, answer, err)
		}
	})
}

// TestSchemaCostOfFullObjects admits the largest objects whose entries the schema looks at one by one.
func TestSchemaCostOfFullObjects(t *testing.T) {
	crds := loadCRDs(t)
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("a", 57)
	names := "[" + list(512, `"`+long+`%04d"`) + "]"
	expectAnswer(t, crds["BGPAdvertisement"], "BGPAdvertisement", "{ipAddressPools: "+names+", peers: "+names+
		", communities: ["+list(63, `"large:4294967295:4294967295:42949672%02d"`)+"]}", "")
	expectAnswer(t, crds["Community"], "Community", "communities: ["+
		list(256, `{name: "`+strings.Repeat("a", 59)+`%04d", value: "large:4294967295:4294967295:4294967295"}`)+"]", "")
}

// TestSchemaAgreesWithParse demands that the schema lets exactly those peers in that the programs find no fault with.
func TestSchemaAgreesWithParse(t *testing.T) {
	peers := loadCRDs(t)["BGPPeer"]
	addresses := []any{"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0::1", "fe80::1", "fe80::1%eth0", "169.254.0.1", "::1", "0.0.0.0", "ff02::1%eth0",
		"255.255.255.255", "::ffff:192.0.2.1", "192.0.2.1%eth0", "2001:db8::1%eth0", "router"}
	asns := []any{int64(64512), int64(64513), int64(4294967295), int64(0)}
	times := []any{"0", "0s", "1s", "2s", "3s", "9s", "20s", "21s", "30s", "1m30s", "1h0m0s", "4095s", "4096s", "65535s", "65536s", "1500ms", "-3s", "3"}
	flags := []any{true, false}
	fields := []struct {
		name   string
		values []any
	}{
		{"myASN", asns},
		{"peerASN", asns[:3]}, // the programs can not tell a 0 from none
		{"localASN", asns[:3]},
		{"dynamicASN", []any{"internal", "external", "any"}},
		{"peerAddress", addresses},
		{"sourceAddress", addresses},
		{"interface", []any{"eth1"}},
		{"vrf", []any{"blue"}},
		{"peerAddressFrom", []any{map[string]any{}, map[string]any{"defaultGateway": "IPv4"}, map[string]any{"defaultGateway": "IPv6"},
			map[string]any{"defaultGateway": "IPv5"}, map[string]any{"nodeAnnotation": "tor"}, map[string]any{"nodeAnnotation": "tor", "defaultGateway": "IPv6"}}},
		{"routerID", []any{"192.0.2.1", "0.0.0.0", "2001:db8::1", "1"}},
		{"holdTime", times},
		{"keepaliveTime", times},
		{"connectTime", times},
		{"gracefulShutdown", times},
		{"gracefulRestartTime", times},
		{"password", []any{"x", strings.Repeat("x", 80), strings.Repeat("x", 81), strings.Repeat("ß", 41)}},
		{"passwordSecret", []any{map[string]any{"name": "router"}}},
		{"ebgpMultiHop", flags},
		{"ttlSecurity", []any{int64(0), int64(1), int64(254), int64(255)}},
	}
	rapid.Check(t, func(rt *rapid.T) {
		spec := map[string]any{"myASN": int64(64512), "peerASN": int64(64513), "peerAddress": "192.0.2.1", "enableGracefulRestart": true}
		for range rapid.IntRange(1, 6).Draw(rt, "changes") {
			field := fields[rapid.IntRange(0, len(fields)-1).Draw(rt, "field")]
			if rapid.IntRange(0, 3).Draw(rt, "without") == 0 {
				delete(spec, field.name)
			} else {
				spec[field.name] = rapid.SampledFrom(field.values).Draw(rt, field.name)
			}
		}
		if _, alone := spec["holdTime"]; !alone && (spec["keepaliveTime"] == "0" || spec["keepaliveTime"] == "0s") {
			rt.Skip("the programs take it for a hold time of 0, which nobody writes in this way on purpose")
		}
		text, err := yaml.Marshal(map[string]any{"apiVersion": "steelyard.io/v1beta1", "kind": "BGPPeer", "metadata": map[string]any{"name": "x"}, "spec": spec})
		if err != nil {
			rt.Fatal(err)
		}
		object, peer := map[string]any{}, v1beta1.BGPPeer{}
		if err := yaml.Unmarshal(text, &object); err != nil {
			rt.Fatal(err)
		}
		var faults []config.Fault
		if err := yaml.Unmarshal(text, &peer); err == nil {
			_, faults = config.Parse(config.Resources{BGPPeers: []v1beta1.BGPPeer{peer}})
		} else {
			faults = []config.Fault{{Message: err.Error()}}
		}
		if answer := peers.admit(t, integers(object).(map[string]any)); (answer == "") != (len(faults) == 0) {
			rt.Errorf("%s\nthe schema says %q, Parse says %v", text, answer, faults)
		}
	})
}

// list returns n values, of 1 to n, in YAML's notation.
func list(n int, format string) string {
	var values []string
	for i := range n {
		values = append(values, fmt.Sprintf(format, i+1))
	}
	return strings.Join(values, ", ")
}
