package ctl

import (
	"strings"
	"testing"
)

// TestReadObjects: all objects are read, in each of the ways in which kubectl and its companions write them.
func TestReadObjects(t *testing.T) {
	const a, b = "kind: IPAddressPool\nmetadata: {name: a}\n", "kind: IPAddressPool\nmetadata: {name: b}\n"
	for name, text := range map[string]string{
		"documents":         a + "---\n" + b,
		"Windows":           strings.ReplaceAll("---\n"+a+"---\n"+b, "\n", "\r\n"),
		"a byte order mark": "\ufeff" + a + "---\n" + b,
		"comments":          "# first\n" + a + "--- # second\n" + b + "---\n# no more\n---\n",
		"no end of line":    a + "---\n" + strings.TrimSpace(b),
		"a list":            "kind: List\nitems:\n- {kind: IPAddressPool, metadata: {name: a}}\n- {kind: IPAddressPool, metadata: {name: b}}\n",
		"a list of a kind":  `{"kind": "IPAddressPoolList", "items": [{"kind": "IPAddressPool", "metadata": {"name": "a"}}, {"kind": "IPAddressPool", "metadata": {"name": "b"}}]}`,
		"JSON after JSON":   `{"kind": "IPAddressPool", "metadata": {"name": "a"}}` + "\n" + `{"kind": "IPAddressPool", "metadata": {"name": "b"}}`,
		"JSON and YAML":     `{"kind": "IPAddressPool", "metadata": {"name": "a"}}` + "\n---\n" + b,
		"an empty list":     "kind: List\nitems: []\n---\n" + a + "---\n" + b,
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := readObjects([]string{"-"}, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for i := range objects {
				names = append(names, objects[i].GetKind()+"/"+objects[i].GetName())
			}
			if got := strings.Join(names, " "); got != "IPAddressPool/a IPAddressPool/b" {
				t.Errorf("has %s", got)
			}
		})
	}
}
