package membership

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sampleMessages = func() []message {
	me := sighting{"node-1", 0xfeedfacecafebeef, 1234 * time.Millisecond}
	you := sighting{"node-2", 42, time.Hour}
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:7946"), netip.MustParseAddrPort("[2001:db8::1]:7946")
	return []message{
		{Kind: kindReplica, Body: []byte("state")},
		{Kind: kindObituary, About: you},
		{Kind: kindReturn, About: you},
		{Kind: kindHeartbeat, From: me, Addr: v4},
		{Kind: kindHello, From: me, Addr: v6},
		{Kind: kindProfile, From: me, Addr: v4, Body: []byte{1, 2, 3}},
		{Kind: kindBye, From: me, Addr: v6},
		{Kind: kindDoubt, From: me, Addr: v4, About: sighting{Name: "node-2"}},
		{Kind: kindVouch, From: me, Addr: v6, About: you, Age: 17 * time.Millisecond},
	}
}()

var unexported = cmp.AllowUnexported(message{}, sighting{})

func compareAddrs(a, b netip.AddrPort) bool { return a == b }

func TestMessageRoundTrip(t *testing.T) {
	for _, m := range sampleMessages {
		b := m.encode()
		got, err := decodeMessage(b)
		if err != nil {
			t.Errorf("%v: %v", m, err)
		}
		if diff := cmp.Diff(m, got, unexported, cmp.Comparer(compareAddrs)); diff != "" {
			t.Error(diff)
		}
		for cut := range b[:len(b)-len(m.Body)] {
			if _, err := decodeMessage(b[:cut]); err == nil {
				t.Errorf("%v: accepted after %d of %d bytes", m, cut, len(b))
			}
		}
	}
	if size := len(sampleMessages[3].encode()); size > 64 {
		t.Errorf("a heartbeat takes %d bytes", size)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range sampleMessages {
		f.Add(m.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		again, err := decodeMessage(m.encode())
		if err != nil {
			t.Fatalf("%v: its own encoding is refused: %v", m, err)
		}
		if diff := cmp.Diff(m, again, unexported, cmp.Comparer(compareAddrs)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestProfileFitsAlways(t *testing.T) {
	many := profile{Instance: 7, Revision: 3, Leaving: true}
	for i := range 300 {
		many.MACs = append(many.MACs, net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)})
		many.Interfaces = append(many.Interfaces, fmt.Sprintf("interface%d", i))
	}
	shared := profile{Interfaces: []string{"bond0", "bond0.17"}, MACs: []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 1}}}
	for name, test := range map[string]struct {
		profile          profile
		macs, interfaces int
		dropped          int
	}{
		"empty":             {profile{}, 0, 0, 0},
		"one MAC for two":   {shared, 1, 2, 0},
		"more than fit":     {many, 35, 22, 543},
		"an impossible MAC": {profile{MACs: []net.HardwareAddr{bytes.Repeat([]byte{1}, 300)}, Interfaces: []string{"a"}}, 0, 1, 1},
		"interfaces only":   {profile{Interfaces: many.Interfaces}, 0, 42, 258},
		"long name":         {profile{Interfaces: []string{strings.Repeat("x", 600), "b"}}, 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			encoded, dropped := test.profile.encode(512)
			if len(encoded) > 512 {
				t.Errorf("takes %d bytes", len(encoded))
			}
			got, err := decodeProfile(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.MACs) != test.macs || len(got.Interfaces) != test.interfaces || dropped != test.dropped {
				t.Errorf("%d MACs and %d interfaces arrive, %d are dropped; want %d, %d and %d",
					len(got.MACs), len(got.Interfaces), dropped, test.macs, test.interfaces, test.dropped)
			}
			if got.Leaving != test.profile.Leaving || got.Instance != test.profile.Instance || got.Revision != test.profile.Revision {
				t.Errorf("arrives as %+v", got)
			}
		})
	}
}

func FuzzDecodeProfile(f *testing.F) {
	encoded, _ := profile{Instance: 1, MACs: []net.HardwareAddr{{2, 0, 0, 0, 0, 1}}, Interfaces: []string{"eth0"}}.encode(512)
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeProfile(b)
		if err != nil {
			return
		}
		encoded, _ := p.encode(512)
		if _, err := decodeProfile(encoded); err != nil {
			t.Fatalf("%+v: its own encoding is refused: %v", p, err)
		}
	})
}
