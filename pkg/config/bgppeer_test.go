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
