package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseRange(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       string // the range, or what the error begins with
		err        string // what the error says to write, "" when there is none
	}{
		{"IPv4 network", "192.0.2.0/24", "192.0.2.0-192.0.2.255", ""},
		{"IPv6 network", "2001:db8::/64", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff", ""},
		{"network across a byte", "10.0.0.0/23", "10.0.0.0-10.0.1.255", ""},
		{"single address", "192.0.2.7/32", "192.0.2.7/32", ""},
		{"everything", "::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
		{"a host stands for its network", "192.0.2.5/24", "192.0.2.0-192.0.2.255", ""},
		{"IPv4 range", "192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20", ""},
		{"IPv6 range", "2001:db8::10-2001:DB8::20", "2001:db8::10-2001:db8::20", ""},
		{"range of one", "192.0.2.10-192.0.2.10", "192.0.2.10/32", ""},
		{"spaces", "  192.0.2.10 -\t192.0.2.20 ", "192.0.2.10-192.0.2.20", ""},
		{"spaces around a network", " 192.0.2.0/24 ", "192.0.2.0-192.0.2.255", ""},

		{"nothing", "", `"" is not an IP address`, "write a CIDR such as 192.0.2.0/24"},
		{"a name", "my.host", `"my.host" is not an IP address`, "write a CIDR such as 192.0.2.0/24"},
		{"no length", "192.0.2.1", `"192.0.2.1" is a single address`, "write 192.0.2.1/32"},
		{"no length, IPv6", "2001:db8::1", `"2001:db8::1" is a single address`, "write 2001:db8::1/128"},
		{"length too large", "192.0.2.0/33", `"192.0.2.0/33" has no such prefix length`, "write /0 to /32"},
		{"length negative", "2001:db8::/129", `"2001:db8::/129" has no such prefix length`, "write /0 to /128"},
		{"mask", "192.0.2.0/255.255.255.0", `"192.0.2.0/255.255.255.0" has no such prefix length`, "write /0 to /32"},
		{"leading zeros", "192.168.010.0/24", `"192.168.010.0/24": "192.168.010.0" is not an IP address`, "write a CIDR"},
		{"IPv4 in IPv6", "::ffff:192.0.2.0/120", `"::ffff:192.0.2.0/120": "::ffff:192.0.2.0" is IPv4`, "as 192.0.2.0"},
		{"zone", "fe80::1%eth0-fe80::2", `"fe80::1%eth0-fe80::2": "fe80::1%eth0" has a zone`, "write the first and the last"},
		{"last byte only", "192.0.2.10-20", `"192.0.2.10-20": "20" is not an IP address`, "such as 192.0.2.10-192.0.2.20"},
		{"last address unreadable", "192.0.2.10-x", `"192.0.2.10-x": "x" is not an IP address`, "such as 192.0.2.10-192.0.2.11"},
		{"no last address", "192.0.2.10-", `"192.0.2.10-": "" is not an IP address`, "such as 192.0.2.10-192.0.2.11"},
		{"last byte only, at the end of all", "255.255.255.255-x", `"255.255.255.255-x"`, "such as 255.255.255.255-255.255.255.255"},
		{"three addresses", "10.0.0.1-10.0.0.2-10.0.0.3", `"10.0.0.1-10.0.0.2-10.0.0.3": "10.0.0.2-10.0.0.3" is not`, "such as 10.0.0.1-10.0.0.2"},
		{"mixed families", "192.0.2.1-2001:db8::1", `"192.0.2.1-2001:db8::1" mixes IPv4 and IPv6`, "write one range for each family"},
		{"reversed", "192.0.2.20 - 192.0.2.10", `"192.0.2.20 - 192.0.2.10" runs backwards`, "write 192.0.2.10-192.0.2.20"},
		{"reversed IPv6", "2001:db8::100-2001:db8::ff", `"2001:db8::100-2001:db8::ff" runs backwards`, "write 2001:db8::ff-2001:db8::100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ParseRange(tc.text)
			switch {
			case tc.err == "" && err != nil:
				t.Errorf("error %v, want %s", err, tc.want)
			case tc.err == "":
				if r.String() != tc.want {
					t.Errorf("got %s, want %s", r, tc.want)
				}
			case err == nil:
				t.Errorf("got %s, want an error", r)
			case !strings.HasPrefix(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.err):
				t.Errorf("the error is\n\t%v, want\n\t%s ... %s", err, tc.want, tc.err)
			}
		})
	}
}

func TestRangeContains(t *testing.T) {
	r, err := ParseRange("10.0.0.5-10.0.1.3")
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.0.0.4": false, "10.0.0.5": true, "10.0.0.255": true, "10.0.1.3": true, "10.0.1.4": false, "a00:5::": false, "::": false,
	} {
		if got := r.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Contains(%s) = %t", addr, got)
		}
	}
}

// FuzzParseRange demands that what is read is a range, and reads the same again from its own text.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{
		"192.0.2.0/24", "::/0", "0.0.0.0/0", " 192.0.2.1 - 192.0.2.9", "2001:db8::1-2001:db8::ff", "1.1.1.1", "1.1.1.1-9", "-", "/",
		"::ffff:1.2.3.4/120", "fe80::1%a-fe80::2%a", "255.255.255.255-x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			if !strings.Contains(err.Error(), "write") {
				t.Errorf("%q: the error doesn't say what to write: %v", s, err)
			}
			return
		}
		if r.From.BitLen() != r.To.BitLen() || r.To.Less(r.From) || r.From.Is4In6() || r.From.Zone() != "" {
			t.Errorf("%q gives %s", s, r)
		}
		if !r.Contains(r.From) || !r.Contains(r.To) || r.Contains(r.To.Next()) || r.Contains(r.From.Prev()) {
			t.Errorf("%q: %s has other addresses than those from its first to its last", s, r)
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Errorf("%q gives %s, and that gives %s (%v)", s, r, again, err)
		}
	})
}
