package bfd

import (
	"bytes"
	"testing"
	"time"
)

// good is a packet with another value in each field.
var good = packet{
	diagnostic: NeighborSignaledDown, state: Init, poll: true, demand: true, multiplier: 5, mine: 0x01020304, yours: 0x05060708,
	desiredTx: 300 * time.Millisecond, requiredRx: 50 * time.Millisecond, requiredEchoRx: maxInterval,
}

func TestPacketOnTheWire(t *testing.T) {
	want := []byte{
		0x23, 0xa2, 5, 24, 1, 2, 3, 4, 5, 6, 7, 8,
		0x00, 0x04, 0x93, 0xe0, 0x00, 0x00, 0xc3, 0x50, 0xff, 0xff, 0xff, 0xff,
	}
	got := good.append(nil)
	if !bytes.Equal(got, want) {
		t.Errorf("it is % x instead of % x", got, want)
	}
	if p, why := parse(append(got, "whatever follows it"...)); why != "" || p != good {
		t.Errorf("read back it is %+v %s", p, why)
	}
	final := packet{state: Up, final: true, multiplier: 3, mine: 1}
	if b := final.append(nil); b[1] != 0xd0 {
		t.Errorf("an answer's flags are %x", b[1])
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good.append(nil))
	f.Add(packet{state: Down, multiplier: 1, mine: 1}.append(nil))
	f.Add(append(good.append(nil), 1, 2, 3))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, why := parse(b)
		if why != "" {
			return
		}
		if p.mine == 0 || p.multiplier == 0 || p.state > Up || p.yours == 0 && p.state > Down {
			t.Fatalf("%+v was accepted", p)
		}
		again := p.append(nil)
		// The length may have been that of a longer packet; what is in the first 24 bytes must come through, but for a bit that means nothing here.
		want := bytes.Clone(b[:packetLength])
		want[1] &^= 0x08
		want[3] = packetLength
		if !bytes.Equal(again, want) {
			t.Fatalf("% x became % x", b, again)
		}
	})
}
