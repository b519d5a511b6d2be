package layer2

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
)

var (
	group6     = netip.MustParseAddr("ff02::1:ff00:100") // solicited-node group of vip6
	hexGroup   = "3333ff000100"
	clientLLA  = &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: theirs.hardware()}
	claimLLA   = &ndp.LinkLayerAddress{Direction: ndp.Target, Addr: theirs.hardware()}
	unspecific = netip.IPv6Unspecified()
)

func solicitation(options ...ndp.Option) *ndp.NeighborSolicitation {
	return &ndp.NeighborSolicitation{TargetAddress: vip6, Options: options}
}

func TestNDPMeaning(t *testing.T) {
	toGroup := multicastMAC(group6)
	question := heard{asks: vip6, claims: client6, sender: theirs, source: client6}
	changed := func(frame []byte, at int, to byte) []byte {
		frame[at] = to
		return frame
	}
	const hopLimit, code, sum = ethernetHeader + 7, ethernetHeader + ipv6Header + 1, ethernetHeader + ipv6Header + 2
	for _, c := range []struct {
		name  string
		frame []byte
		want  heard // zero: not for us
	}{
		{"multicast solicitation", icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6), question},
		{"unicast solicitation", icmpFrame(solicitation(clientLLA), mine, theirs, client6, vip6), question},
		{"unicast solicitation without source link-layer address", icmpFrame(solicitation(), mine, theirs, client6, vip6), question},
		{"multicast solicitation without source link-layer address", icmpFrame(solicitation(), toGroup, theirs, client6, group6), question},
		{"the option counts more than the frame", icmpFrame(solicitation(clientLLA), toGroup, mac{2, 9}, client6, group6), question},
		{"other options besides", icmpFrame(solicitation(ndp.NewNonce(), clientLLA), toGroup, theirs, client6, group6), question},
		{"duplicate address detection", icmpFrame(solicitation(ndp.NewNonce()), toGroup, theirs, unspecific, group6),
			heard{asks: vip6, wants: vip6, sender: theirs, source: unspecific}},
		{"duplicate address detection with a source link-layer address", icmpFrame(solicitation(clientLLA), toGroup, theirs, unspecific, group6), heard{}},
		{"duplicate address detection by unicast", icmpFrame(solicitation(), mine, theirs, unspecific, vip6), heard{}},
		{"solicited advertisement", icmpFrame(&ndp.NeighborAdvertisement{Solicited: true, TargetAddress: vip6}, mine, theirs, vip6, me.linkLocal),
			heard{claims: vip6, sender: theirs, source: vip6}},
		{"unsolicited advertisement", icmpFrame(&ndp.NeighborAdvertisement{TargetAddress: vip6, Options: []ndp.Option{claimLLA}}, multicastMAC(allNodes), mac{2, 9}, client6, allNodes),
			heard{claims: vip6, sender: theirs, source: client6}},
		{"solicited advertisement to a group", icmpFrame(&ndp.NeighborAdvertisement{Solicited: true, TargetAddress: vip6}, multicastMAC(allNodes), theirs, vip6, allNodes), heard{}},
		{"our own solicitation", icmpFrame(solicitation(), toGroup, mine, client6, group6), heard{}},
		{"solicitation to another host", icmpFrame(solicitation(), mac{2, 9}, theirs, client6, vip6), heard{}},
		{"solicitation of a group", icmpFrame(&ndp.NeighborSolicitation{TargetAddress: group6}, toGroup, theirs, client6, group6), heard{}},
		{"router solicitation", icmpFrame(&ndp.RouterSolicitation{}, multicastMAC(allNodes), theirs, client6, allNodes), heard{}},
		{"through a router", changed(icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6), hopLimit, 254), heard{}},
		{"code not 0", changed(icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6), code, 1), heard{}},
		{"wrong checksum", changed(icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6), sum, 0), heard{}},
		{"padded", append(icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6), 0, 0, 0), question},
		{"cut off", icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6)[:80], heard{}},
		{"no more than headers", icmpFrame(solicitation(), toGroup, theirs, client6, group6)[:54], heard{}},
		{"empty", nil, heard{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ndpWire{}.parse(c.frame, me)
			if got != c.want || ok != (c.want != heard{}) {
				t.Errorf("parse = %+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
}

func TestNDPPackets(t *testing.T) {
	const (
		toAll      = "333300000001"
		header     = " 86dd 60000000 0020 3a ff "
		probeHdr   = " 86dd 60000000 0018 3a ff "
		linkLocal  = "fe800000000000000000000000000001"
		all        = "ff020000000000000000000000000001"
		group      = "ff0200000000000000000001ff000100"
		client     = "20010db8000000000000000000000010"
		vip        = "20010db8000000000000000000000100"
		none       = "00000000000000000000000000000000"
		solicited  = "60000000" // solicited and override
		override   = "20000000"
		ourAddress = "0201" + hexMine
	)
	for _, c := range []struct {
		name string
		got  []byte
		want string // without the checksum
	}{
		{"answer to a solicitation", ndpWire{}.answer(heard{asks: vip6, sender: theirs, source: client6}, me),
			hexTheirs + hexMine + header + linkLocal + client + "8800" + solicited + vip + ourAddress},
		{"answer to duplicate address detection", ndpWire{}.answer(heard{asks: vip6, wants: vip6, sender: theirs, source: unspecific}, me),
			toAll + hexMine + header + linkLocal + all + "8800" + override + vip + ourAddress},
		{"announcement", ndpWire{}.announce(vip6, me)[0],
			toAll + hexMine + header + linkLocal + all + "8800" + override + vip + ourAddress},
		{"probe", ndpWire{}.probe(vip6, me),
			hexGroup + hexMine + probeHdr + none + group + "8700" + "00000000" + vip},
	} {
		t.Run(c.name, func(t *testing.T) {
			const at = ethernetHeader + ipv6Header + 2
			body := c.got[ethernetHeader+ipv6Header:]
			ip := c.got[ethernetHeader:]
			if checksum(body, netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))) != 0 {
				t.Error("wrong checksum")
			}
			got := append(append([]byte{}, c.got[:at]...), c.got[at+2:]...)
			if d := cmp.Diff(frameOf(t, c.want), got); d != "" {
				t.Errorf("frame (-want +got):\n%s", d)
			}
		})
	}
}

func TestSolicitedNodeGroup(t *testing.T) {
	// The example of RFC 4291 2.7.1.
	group := solicitedNode(netip.MustParseAddr("4037::01:800:200e:8c6c"))
	if want := netip.MustParseAddr("ff02::1:ff0e:8c6c"); group != want {
		t.Errorf("group %s, want %s", group, want)
	}
	if got, want := multicastMAC(group), (mac{0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c}); got != want {
		t.Errorf("MAC %s, want %s", got, want)
	}
}

func FuzzNDP(f *testing.F) {
	toGroup := multicastMAC(group6)
	f.Add(icmpFrame(solicitation(clientLLA), toGroup, theirs, client6, group6))
	f.Add(icmpFrame(solicitation(ndp.NewNonce()), toGroup, theirs, unspecific, group6))
	f.Add(icmpFrame(&ndp.NeighborAdvertisement{TargetAddress: vip6, Options: []ndp.Option{claimLLA}}, multicastMAC(allNodes), theirs, client6, allNodes))
	f.Add([]byte(strings.Repeat("`", 200)))
	f.Fuzz(func(t *testing.T, frame []byte) {
		// The fuzzer would hardly ever find a checksum.
		if len(frame) > ethernetHeader+ipv6Header+4 {
			mendChecksum(frame)
		}
		checkWire(t, ndpWire{}, frame)
	})
}

func mendChecksum(frame []byte) {
	ip := frame[ethernetHeader:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if length < 4 || len(ip) < ipv6Header+length {
		return
	}
	source, destination := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	body := ip[ipv6Header : ipv6Header+length]
	body[2], body[3] = 0, 0
	binary.BigEndian.PutUint16(body[2:], checksum(body, source, destination))
}
