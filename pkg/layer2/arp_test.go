package layer2

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	mine   = mac{0x02, 0, 0, 0, 0, 0x01}
	theirs = mac{0x02, 0, 0, 0, 0, 0x02}
	me     = identity{mac: mine, linkLocal: netip.MustParseAddr("fe80::1")}

	client4 = netip.MustParseAddr("192.0.2.10")
	client6 = netip.MustParseAddr("2001:db8::10")
)

// Frames are written in hexadecimal with spaces between the fields.
func frameOf(t testing.TB, fields string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(fields, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	hexAll    = "ffffffffffff"
	hexNone   = "000000000000"
	hexMine   = "020000000001"
	hexTheirs = "020000000002"
	hexOther  = "020000000003"
	hexARP    = " 0806 0001 0800 06 04 "
	hexVIP    = "c0000264" // 192.0.2.100
	hexClient = "c000020a" // 192.0.2.10
	hexNoIP   = "00000000"
)

func TestARPMeaning(t *testing.T) {
	question := heard{asks: vip4, claims: client4, sender: theirs, source: client4}
	for _, c := range []struct {
		name  string
		frame string
		want  heard // zero: not for us
	}{
		{"broadcast request", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + hexVIP, question},
		{"unicast request to us", hexMine + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexMine + hexVIP, question},
		{"request padded to the minimum frame", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + hexVIP + strings.Repeat("00", 18), question},
		{"unicast request to another host", hexOther + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"request to a multicast group", "01005e000001" + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"our own request", hexAll + hexMine + hexARP + "0001" + hexMine + hexClient + hexNone + hexVIP, heard{}},
		{"probe", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexNoIP + hexNone + hexVIP,
			heard{asks: vip4, wants: vip4, sender: theirs, source: netip.IPv4Unspecified()}},
		{"announcement by request", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexVIP + hexNone + hexVIP,
			heard{claims: vip4, sender: theirs, source: vip4}},
		{"announcement by reply", hexAll + hexTheirs + hexARP + "0002" + hexTheirs + hexVIP + hexTheirs + hexVIP,
			heard{claims: vip4, sender: theirs, source: vip4}},
		{"reply to us", hexMine + hexTheirs + hexARP + "0002" + hexTheirs + hexVIP + hexMine + hexNoIP,
			heard{claims: vip4, sender: theirs, source: vip4}},
		{"reply from nobody", hexMine + hexTheirs + hexARP + "0002" + hexTheirs + hexNoIP + hexMine + hexVIP, heard{}},
		{"request for no address", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + hexNoIP, heard{}},
		{"reverse ARP", hexAll + hexTheirs + hexARP + "0003" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"not Ethernet", hexAll + hexTheirs + " 0806 0006 0800 06 04 0001" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"not IPv4", hexAll + hexTheirs + " 0806 0001 86dd 06 04 0001" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"lengths of another protocol", hexAll + hexTheirs + " 0806 0001 0800 04 06 0001" + hexTheirs + hexClient + hexNone + hexVIP, heard{}},
		{"cut off", hexAll + hexTheirs + hexARP + "0001" + hexTheirs + hexClient + hexNone + "c000", heard{}},
		{"no more than a header", hexAll + hexTheirs + " 0806", heard{}},
		{"empty", "", heard{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := arpWire{}.parse(frameOf(t, c.frame), me)
			if got != c.want || ok != (c.want != heard{}) {
				t.Errorf("parse = %+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
}

func TestARPPackets(t *testing.T) {
	request := heard{asks: vip4, claims: client4, sender: theirs, source: client4}
	probe := heard{asks: vip4, wants: vip4, sender: theirs, source: netip.IPv4Unspecified()}
	for _, c := range []struct {
		name string
		got  [][]byte
		want []string
	}{
		{"answer to a request", [][]byte{arpWire{}.answer(request, me)}, []string{
			hexTheirs + hexMine + hexARP + "0002" + hexMine + hexVIP + hexTheirs + hexClient}},
		{"answer to a probe", [][]byte{arpWire{}.answer(probe, me)}, []string{
			hexTheirs + hexMine + hexARP + "0002" + hexMine + hexVIP + hexTheirs + hexNoIP}},
		{"announcement", arpWire{}.announce(vip4, me), []string{
			hexAll + hexMine + hexARP + "0001" + hexMine + hexVIP + hexNone + hexVIP,
			hexAll + hexMine + hexARP + "0002" + hexMine + hexVIP + hexMine + hexVIP}},
		{"probe", [][]byte{arpWire{}.probe(vip4, me)}, []string{
			hexAll + hexMine + hexARP + "0001" + hexMine + hexNoIP + hexNone + hexVIP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want [][]byte
			for _, w := range c.want {
				want = append(want, frameOf(t, w))
			}
			if d := cmp.Diff(want, c.got); d != "" {
				t.Errorf("frames (-want +got):\n%s", d)
			}
		})
	}
}

func FuzzARP(f *testing.F) {
	f.Add(frameOf(f, hexAll+hexTheirs+hexARP+"0001"+hexTheirs+hexClient+hexNone+hexVIP))
	f.Add(frameOf(f, hexMine+hexTheirs+hexARP+"0002"+hexTheirs+hexVIP+hexMine+hexNoIP))
	f.Add(frameOf(f, hexAll+hexTheirs+" 0806 0001 0800 06 10 0001"+hexTheirs+hexClient+hexNone+hexVIP+strings.Repeat("00", 18)))
	f.Fuzz(func(t *testing.T, frame []byte) { checkWire(t, arpWire{}, frame) })
}

// checkWire tests what has to hold whatever is received: no panic, and an answer that its receiver takes for just that.
func checkWire(t *testing.T, w wire, frame []byte) {
	h, ok := w.parse(frame, me)
	if !ok {
		if h != (heard{}) {
			t.Errorf("a refused frame means %+v", h)
		}
		return
	}
	if h.sender == mine {
		t.Errorf("heard our own packet: %+v", h)
	}
	if !h.asks.IsValid() {
		return
	}
	answer := w.answer(h, me)
	if got := mac(answer[6:12]); got != mine {
		t.Errorf("the answer comes from %s", got)
	}
	if h.sender == (mac{}) {
		return
	}
	got, ok := w.parse(answer, identity{mac: h.sender, linkLocal: h.source})
	if !ok || got.claims != h.asks || got.sender != mine {
		t.Errorf("the asker takes the answer to %+v for %+v, %v", h, got, ok)
	}
}
