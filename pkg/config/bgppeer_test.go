package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The numbers are those of the scenarios that MetalLB's own tests of its configuration come down to.
func TestParseBGPPeer(t *testing.T) {
	at := func(rest string) string { return "peer a {myASN: 64512, peerASN: 64513, " + rest + "}\n" }
	const address = "peerAddress: 192.0.2.1"
	fine := []string{"peer a"}
	for _, tc := range []parseCase{
		{
			name: "G1 neither peerASN nor dynamicASN, both, and none of ours", want: []string{"peer d", "peer e"},
			resources: "peer a {myASN: 1, peerAddress: 192.0.2.1}\npeer b {myASN: 1, peerASN: 2, dynamicASN: external, peerAddress: 192.0.2.2}\n" +
				"peer c {myASN: 0, peerASN: 2, peerAddress: 192.0.2.3}\npeer d {myASN: 1, dynamicASN: internal, peerAddress: 192.0.2.4}\n" +
				"peer e {myASN: 1, dynamicASN: external, peerAddress: 192.0.2.5}\npeer f {myASN: 1, dynamicASN: any, peerAddress: 192.0.2.6}",
			faults: []string{
				"a spec.peerASN MissingField: 0 is no AS number: write 1 to 4294967295, or set dynamicASN",
				"b spec.dynamicASN Contradiction: spec.peerASN is set too",
				"c spec.myASN InvalidValue: 0 is no AS number",
				`f spec.dynamicASN InvalidValue: "any" is not understood`,
			},
		},
		{
			name: "G1 addresses that are none", resources: at("peerAddress: router, sourceAddress: 192.0.2.256, routerID: '1'"),
			faults: []string{
				`a spec.peerAddress InvalidValue: "router" is not an IP address: write one such as`,
				`a spec.sourceAddress InvalidValue: "192.0.2.256" is not an IP address`,
				`a spec.routerID InvalidValue: "1" is no router ID: write it like an IPv4 address`,
			},
		},
		{
			name: "G1 addresses that no session can have", resources: at("peerAddress: 0.0.0.0, sourceAddress: 'ff02::1', routerID: '2001:db8::1'"),
			faults: []string{
				"a spec.peerAddress InvalidValue: 0.0.0.0 is not an address of a single host",
				"a spec.sourceAddress InvalidValue: ff02::1 is not an address of a single host",
				"a spec.sourceAddress Contradiction: is of another family",
				`a spec.routerID InvalidValue: "2001:db8::1" is no router ID`,
			},
		},
		{
			name:   "G1 zones",
			want:   []string{"peer c", "peer d", "peer g"},
			faults: []string{"a spec.peerAddress InvalidValue: fe80::1 is on every interface: write fe80::1%eth0", "b spec.peerAddress InvalidValue: which only a link-local address has: write 2001:db8::1", "f spec.peerAddress InvalidValue: IPv4 in IPv6 clothing, write it as 192.0.2.1"},
			resources: "peer a {myASN: 1, peerASN: 1, peerAddress: 'fe80::1'}\npeer b {myASN: 1, peerASN: 1, peerAddress: '2001:db8::1%eth0'}\n" +
				"peer c {myASN: 1, peerASN: 1, peerAddress: 'fe80::1%eth0'}\npeer d {myASN: 1, peerASN: 1, peerAddress: 'fe80::2', vrf: eth1}\n" +
				"peer f {myASN: 1, peerASN: 1, peerAddress: '::ffff:192.0.2.1'}\npeer g {myASN: 1, peerASN: 1, peerAddress: 169.254.1.1}",
		},
		{
			name: "G1 the peer in no place, and in two", want: []string{"peer e", "peer f", "peer g"},
			resources: "peer a {myASN: 1, peerASN: 1}\npeer b {myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, interface: eth0}\n" +
				"peer c {myASN: 1, peerASN: 1, peerAddressFrom: {}}\npeer d {myASN: 1, peerASN: 1, peerAddressFrom: {defaultGateway: IPv4, nodeAnnotation: a}}\n" +
				"peer e {myASN: 1, peerASN: 1, peerAddressFrom: {defaultGateway: IPv6}}\npeer f {myASN: 1, peerASN: 1, peerAddressFrom: {nodeAnnotation: a}}\n" +
				"peer g {myASN: 1, peerASN: 1, interface: eth0}",
			faults: []string{
				"a spec.peerAddress MissingField: is empty: write the peer's address, or set peerAddressFrom or interface",
				"b spec.interface Contradiction: spec.peerAddress is set too",
				`c spec.peerAddressFrom.defaultGateway InvalidValue: "" is no family: write IPv4 or IPv6`,
				"d spec.peerAddressFrom.nodeAnnotation Contradiction: spec.peerAddressFrom.defaultGateway is set too",
			},
		},
		{
			name: "G1 a source of another family, or the peer's own", want: []string{"peer d"},
			resources: "peer a {myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, sourceAddress: '2001:db8::1'}\npeer b {myASN: 1, peerASN: 1, interface: eth0, sourceAddress: 192.0.2.1}\n" +
				"peer c {myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, sourceAddress: 192.0.2.1}\npeer d {myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, sourceAddress: 192.0.2.2}",
			faults: []string{
				"a spec.sourceAddress Contradiction: is of another family than the peer's address",
				"b spec.sourceAddress Contradiction: is of another family than the peer's address",
				"c spec.sourceAddress Contradiction: is the peer's address: write the node's",
			},
		},
		{
			name: "G1 ebgpMultiHop with equal AS numbers", want: []string{"peer b"},
			resources: "peer a {myASN: 1, peerASN: 1, ebgpMultiHop: true, peerAddress: 192.0.2.1}\npeer b {myASN: 1, dynamicASN: external, ebgpMultiHop: true, peerAddress: 192.0.2.2}\n" +
				"peer c {myASN: 1, localASN: 2, peerASN: 2, ebgpMultiHop: true, peerAddress: 192.0.2.3}\npeer d {myASN: 1, dynamicASN: internal, ebgpMultiHop: true, peerAddress: 192.0.2.4}",
			faults: []string{
				"a spec.ebgpMultiHop Contradiction: is for peers of another AS, and this one is of ours (1)",
				"c spec.ebgpMultiHop Contradiction: this one is of ours (2)",
				"d spec.ebgpMultiHop Contradiction: this one is of ours (1)",
			},
		},
		{
			name: "GTSM with too many hops, and with ebgpMultiHop", resources: at(address + ", ttlSecurity: 255, ebgpMultiHop: true"),
			faults: []string{
				"a spec.ttlSecurity InvalidValue: 255 hops are not possible: write 1 to 254",
				"a spec.ttlSecurity Contradiction: so does ebgpMultiHop",
			},
		},
		{
			name: "G2 a hold time of 1 s", resources: at(address + ", holdTime: 1s"),
			faults: []string{"a spec.holdTime InvalidValue: 1s is too short: write 0s for never, or at least 3s"},
		},
		{
			name: "G2 keepalives longer than the hold time", resources: at(address + ", holdTime: 30s, keepaliveTime: 31s"),
			faults: []string{"a spec.keepaliveTime Contradiction: 31s is longer than holdTime, 30s"},
		},
		{
			name: "G2 keepalives without a hold time, and the other way round", resources: at(address+", holdTime: 0s, keepaliveTime: 10s") +
				"peer b {myASN: 1, peerASN: 2, peerAddress: 192.0.2.2, holdTime: 30s, keepaliveTime: 0s}",
			faults: []string{
				"a spec.keepaliveTime Contradiction: 10s is longer than holdTime, 0s",
				"b spec.keepaliveTime Contradiction: without keepalives the peer ends the session after holdTime, 30s",
			},
		},
		{
			name: "times that BGP can't say", want: []string{"peer a"},
			resources: at(address+", gracefulRestartTime: 5000s") +
				"peer b {myASN: 1, peerASN: 2, peerAddress: 192.0.2.2, holdTime: 18h13m, keepaliveTime: 1500ms, connectTime: 0s, enableGracefulRestart: true, gracefulRestartTime: 4096s, gracefulShutdown: 21s}",
			faults: []string{
				"b spec.connectTime InvalidValue: 0s is not possible: write whole seconds, 1s to 65535s",
				"b spec.gracefulRestartTime InvalidValue: 1h8m16s is not possible: write whole seconds, 1s to 4095s",
				"b spec.gracefulShutdown InvalidValue: 21s is not possible: write whole seconds, 0s to 20s",
				"b spec.keepaliveTime InvalidValue: 1.5s is not possible",
				"b spec.holdTime InvalidValue: 18h13m0s is not possible: write whole seconds, 0s to 65535s",
			},
		},
		{
			name: "G4 a malformed selector matches no node", want: fine,
			resources: at(address + ", nodeSelectors: [{matchExpressions: [{key: a, operator: Is}]}]"),
			faults:    []string{"a spec.nodeSelectors[0] MalformedSelector: matches nothing until it is mended"},
		},
		{
			name: "a selector that no node matches", want: fine,
			resources: at(address+", nodeSelectors: [{matchLabels: {rack: b}}]") + "node n1 rack=a",
			faults:    []string{"a spec.nodeSelectors NoNodeSelected: no node matches rack=b, so there is no session"},
		},
		{
			name: "G10 a password and a Secret", resources: at(address + ", password: hunter2, passwordSecret: {name: tor}"),
			faults: []string{"a spec.passwordSecret Contradiction: spec.password is set too"},
		},
		{
			name: "G10 Secrets that are not known are not judged", want: fine, resources: at(address + ", passwordSecret: {name: tor, namespace: steelyard}"),
		},
		{
			name: "G10 a Secret that does not exist", resources: at(address+", passwordSecret: {name: tor}") + "secret other kubernetes.io/basic-auth hunter2",
			faults: []string{`a spec.passwordSecret.name SecretNotFound: there is no Secret "tor" of type kubernetes.io/basic-auth in the namespace "steelyard": kubectl -n steelyard create secret generic tor --type=kubernetes.io/basic-auth --from-literal=password=...`},
		},
		{
			name: "G10 a Secret of another type", resources: at(address+", passwordSecret: {name: tor}") + "secret tor Opaque hunter2",
			faults: []string{`a spec.passwordSecret.name SecretInvalid: the Secret "tor" is of type Opaque, which can't be changed: delete it, and kubectl -n steelyard create`},
		},
		{
			name: "G10 a Secret without the entry, or with an empty one", resources: at(address+", passwordSecret: {name: tor}") +
				"peer b {myASN: 1, peerASN: 2, peerAddress: 192.0.2.2, passwordSecret: {name: spine}}\nsecret tor kubernetes.io/basic-auth\nsecret spine kubernetes.io/basic-auth ''",
			faults: []string{
				`a spec.passwordSecret.name SecretInvalid: the Secret "tor" has no entry "password", or an empty one`,
				`b spec.passwordSecret.name SecretInvalid: the Secret "spine" has no entry "password", or an empty one`,
			},
		},
		{
			name: "G10 a Secret of another namespace, or without a name", resources: at(address+", passwordSecret: {name: tor, namespace: default}") +
				"peer b {myASN: 1, peerASN: 2, peerAddress: 192.0.2.2, passwordSecret: {name: ''}}\nsecret tor kubernetes.io/basic-auth hunter2",
			faults: []string{
				`a spec.passwordSecret.namespace InvalidValue: Secrets are read in the namespace "steelyard" only: move the Secret there`,
				"b spec.passwordSecret.name MissingField: is empty",
			},
		},
		{
			name: "a password that the kernel does not take", resources: at(address+", passwordSecret: {name: tor}") +
				"peer b {myASN: 1, peerASN: 2, peerAddress: 192.0.2.2, password: " + strings.Repeat("p", 81) + "}\nsecret tor kubernetes.io/basic-auth " + strings.Repeat("p", 81),
			faults: []string{
				`a spec.passwordSecret.name SecretInvalid: the password in the Secret "tor" has 81 bytes and can have 80`,
				"b spec.password InvalidValue: has 81 bytes and can have 80",
			},
		},
		{
			name: "a password with a line break is used as it is", want: fine,
			resources: at(address+", passwordSecret: {name: tor}") + `secret tor kubernetes.io/basic-auth hunter2\n`,
			faults:    []string{`warning a spec.passwordSecret.name SecretInvalid: begins or ends with a space or a line break, which is part of it`},
		},
	} {
		t.Run(tc.name, tc.run)
	}
}

// Faults become conditions and log lines, which more people read than may read Secrets.
func TestPasswordsAreNotTold(t *testing.T) {
	for _, secret := range []string{"Opaque hunter2", "kubernetes.io/basic-auth hunter2 ", "kubernetes.io/basic-auth " + strings.Repeat("hunter2", 12)} {
		_, faults := Parse(resources(t, `peer a {myASN: 0, peerASN: 2, peerAddress: 192.0.2.1, passwordSecret: {name: tor}}
			peer b {myASN: 0, peerASN: 2, peerAddress: 192.0.2.2, password: hunter2, passwordSecret: {name: tor}}
			peer c {myASN: 0, peerASN: 2, peerAddress: 192.0.2.3, password: `+strings.Repeat("hunter2", 12)+`}
			secret tor `+secret))
		if len(faults) == 0 || strings.Contains(fmt.Sprint(faults), "hunter2") {
			t.Errorf("%s: faults are %v", secret, faults)
		}
	}
}

func TestBGPPeerFields(t *testing.T) {
	cfg, faults := Parse(resources(t, `
		peer a {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1, disableMP: true}
		peer b {myASN: 64512, localASN: 64999, dynamicASN: internal, peerAddress: "fe80::1%eth0", peerPort: 1790, sourceAddress: "fe80::2", vrf: red, passive: true, connectTime: 1m, routerID: 192.0.2.9, password: p, enableGracefulRestart: true, gracefulRestartTime: 60s, gracefulShutdown: 5s, ttlSecurity: 1, dualStackAddressFamily: true}
		peer c {myASN: 64512, dynamicASN: external, peerAddressFrom: {defaultGateway: IPv6}, ebgpMultiHop: true, passwordSecret: {name: tor}, enableGracefulRestart: true}
		peer d {myASN: 64512, peerASN: 4294967295, peerAddressFrom: {nodeAnnotation: example.com/tor}}
		peer e {myASN: 64512, peerASN: 64513, interface: eth1}
	`))
	if len(faults) > 0 {
		t.Errorf("faults: %v", faults)
	}
	const hold, keepalive, connect = 90 * time.Second, 30 * time.Second, 10 * time.Second
	want := []*BGPPeer{
		{Name: "a", Address: netip.MustParseAddr("192.0.2.1"), Port: 179, LocalASN: 64512, PeerASN: 64513,
			HoldTime: hold, KeepaliveTime: keepalive, ConnectTime: connect},
		{Name: "b", Address: netip.MustParseAddr("fe80::1%eth0"), Port: 1790, LocalASN: 64999, PeerASN: 64999, Source: netip.MustParseAddr("fe80::2"),
			Device: "red", Passive: true, HoldTime: hold, KeepaliveTime: keepalive, ConnectTime: time.Minute, RouterID: netip.MustParseAddr("192.0.2.9"),
			Password: "p", RestartTime: time.Minute, ShutdownTime: 5 * time.Second, TTLSecurity: 1, DualStack: true},
		{Name: "c", Gateway: "IPv6", Port: 179, LocalASN: 64512, Multihop: true, PasswordSecret: "tor", RestartTime: 2 * time.Minute,
			HoldTime: hold, KeepaliveTime: keepalive, ConnectTime: connect},
		{Name: "d", Annotation: "example.com/tor", Port: 179, LocalASN: 64512, PeerASN: 4294967295, HoldTime: hold, KeepaliveTime: keepalive, ConnectTime: connect},
		{Name: "e", Interface: "eth1", Port: 179, LocalASN: 64512, PeerASN: 64513, HoldTime: hold, KeepaliveTime: keepalive, ConnectTime: connect},
	}
	if diff := cmp.Diff(want, cfg.BGPPeers, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTimers(t *testing.T) {
	for name, test := range map[string]struct {
		spec            string
		hold, keepalive time.Duration
	}{
		"G2 none":                          {"", 90 * time.Second, 30 * time.Second},
		"G2 hold time only":                {"holdTime: 180s", 180 * time.Second, time.Minute},
		"G2 keepalive time only":           {"keepaliveTime: 60s", 180 * time.Second, time.Minute},
		"G2 both 0":                        {"holdTime: 0s, keepaliveTime: 0s", 0, 0},
		"G2 hold time 0":                   {"holdTime: 0s", 0, 0},
		"G2 equal":                         {"holdTime: 3s, keepaliveTime: 3s", 3 * time.Second, 3 * time.Second},
		"a third that is not whole":        {"holdTime: 5s", 5 * time.Second, time.Second},
		"three times is more than 16 bits": {"keepaliveTime: 40000s", 65535 * time.Second, 40000 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, faults := Parse(resources(t, "peer a {myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, "+test.spec+"}"))
			if len(cfg.BGPPeers) == 0 {
				t.Fatal(faults)
			}
			if p := cfg.BGPPeers[0]; p.HoldTime != test.hold || p.KeepaliveTime != test.keepalive {
				t.Errorf("hold time %v, keepalive time %v", p.HoldTime, p.KeepaliveTime)
			}
		})
	}
}
