package v1beta1_test

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/config"
)

// crd does with an object what the API server does: defaults, prunes and validates it by the schema that we ship.
type crd struct {
	structural *schema.Structural
	openapi    validation.SchemaValidator
	cel        *cel.Validator
	columns    []apiextensionsv1.CustomResourceColumnDefinition
}

// loadCRDs returns the generated CRDs by kind. It fails the test for one that the API server would refuse.
func loadCRDs(t *testing.T) map[string]*crd {
	t.Helper()
	scheme := runtime.NewScheme()
	install.Install(scheme)
	files, err := filepath.Glob("../../../config/crd/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRD found in config/crd: run hack/generate (%v)", err)
	}
	crds := map[string]*crd{}
	for _, file := range files {
		var v1 apiextensionsv1.CustomResourceDefinition
		mustRead(t, file, &v1)
		scheme.Default(&v1)
		v1.Status.StoredVersions = []string{"v1beta1"}
		var internal apiextensions.CustomResourceDefinition
		if err := scheme.Convert(&v1, &internal, nil); err != nil {
			t.Fatal(err)
		}
		if errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), &internal); len(errs) > 0 {
			t.Fatalf("%s: %v", file, errs.ToAggregate())
		}
		props := internal.Spec.Validation.OpenAPIV3Schema
		structural, err := schema.NewStructural(props)
		if err != nil {
			t.Fatal(err)
		}
		openapi, _, err := validation.NewSchemaValidator(props)
		if err != nil {
			t.Fatal(err)
		}
		crds[v1.Spec.Names.Kind] = &crd{structural, openapi, cel.NewValidator(structural, true, celconfig.PerCallLimit), v1.Spec.Versions[0].AdditionalPrinterColumns}
	}
	return crds
}

// admit defaults the object and returns what the API server would answer to its creation, "" when it accepts it.
func (c *crd) admit(t *testing.T, object map[string]any) string {
	t.Helper()
	unknown := pruning.PruneWithOptions(object, c.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		return "unknown fields: " + strings.Join(unknown, ", ")
	}
	defaulting.Default(object, c.structural)
	errs := validation.ValidateCustomResource(nil, object, c.openapi)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, c.structural, object)...)
	if len(errs) == 0 {
		errs, _ = c.cel.Validate(t.Context(), nil, c.structural, object, nil, celconfig.RuntimeCELCostBudget)
	}
	if len(errs) == 0 {
		return ""
	}
	return errs.ToAggregate().Error()
}

func mustRead(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestIPAddressPoolSchema(t *testing.T) {
	pools := loadCRDs(t)["IPAddressPool"]
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"IPv4 network", `addresses: [192.0.2.0/24]`, ""},
		{"IPv6 network", `addresses: ["2001:db8::/64"]`, ""},
		{"IPv4 range", `addresses: [192.0.2.10-192.0.2.20]`, ""},
		{"IPv4 range across bytes", `addresses: [192.0.1.250-192.0.2.5]`, ""},
		{"IPv6 range", `addresses: ["2001:db8::10-2001:db8::20"]`, ""},
		{"IPv6 range in two ways of writing", `addresses: ["2001:db8::ff-2001:0db8:0000:0000:0000:0000:0000:0100"]`, ""},
		{"IPv6 range with IPv4 in it", `addresses: ["64:ff9b::192.0.2.1-64:ff9b::192.0.2.9"]`, ""},
		{"spaces", `addresses: [" 192.0.2.10 - 192.0.2.20 ", " 192.0.2.64/26 "]`, ""},
		{"range of one", `addresses: [192.0.2.10-192.0.2.10]`, ""},
		{"everything", `addresses: [0.0.0.0-255.255.255.255, "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]`, ""},
		{"both families", `addresses: [192.0.2.0/24, "2001:db8::/64"]`, ""},
		{"a CIDR that names a host of its network", `addresses: [192.0.2.5/24]`, ""},

		{"no addresses", `autoAssign: true`, "spec.addresses: Required value"},
		{"empty addresses", `addresses: []`, "spec.addresses in body should have at least 1 items"},
		{"empty entry", `addresses: [""]`, `"" is no range of addresses: write a CIDR such as 192.0.2.0/24`},
		{"a name", `addresses: [my.host]`, `"my.host" is no range of addresses: write a CIDR such as 192.0.2.0/24`},
		{"prefix too long", `addresses: [192.0.2.0/33]`, `"192.0.2.0/33" is no range of addresses: write a CIDR`},
		{"leading zeros", `addresses: [192.168.010.0/24]`, `"192.168.010.0/24" is no range of addresses: write a CIDR`},
		{"IPv4 in IPv6", `addresses: ["::ffff:192.0.2.0/120"]`, "is no range of addresses: write a CIDR"},
		{"single IPv4 address", `addresses: [192.0.2.1]`, "192.0.2.1 is a single address: write 192.0.2.1/32"},
		{"single IPv6 address", `addresses: ["2001:db8::1"]`, "2001:db8::1 is a single address: write 2001:db8::1/128"},
		{"half a last address", `addresses: [192.0.2.10-20]`, `"192.0.2.10-20" does not name two addresses: write both in full, such as 192.0.2.10-192.0.2.20`},
		{"three addresses", `addresses: [192.0.2.1-192.0.2.2-192.0.2.3]`, "does not name two addresses"},
		{"range of networks", `addresses: [192.0.2.0/24-192.0.3.0/24]`, "does not name two addresses"},
		{"dash only", `addresses: ["-"]`, "does not name two addresses"},
		{"zone", `addresses: ["fe80::1%eth0-fe80::2%eth0"]`, "does not name two addresses"},
		{"mixed families", `addresses: ["192.0.2.1-2001:db8::1"]`, "mixes IPv4 and IPv6: write one range for each family"},
		{"reversed IPv4", `addresses: [192.0.2.20 - 192.0.2.10]`, `"192.0.2.20 - 192.0.2.10" runs backwards: write 192.0.2.10-192.0.2.20`},
		{"reversed by the last bit", `addresses: [192.0.2.11-192.0.2.10]`, "runs backwards: write 192.0.2.10-192.0.2.11"},
		{"reversed by the first bit", `addresses: [192.0.2.1-10.0.0.1]`, "runs backwards: write 10.0.0.1-192.0.2.1"},
		{"reversed IPv6", `addresses: ["2001:db8::100-2001:db8::ff"]`, "runs backwards: write 2001:db8::ff-2001:db8::100"},
		{"the entry at fault is named", `addresses: [192.0.2.0/24, nonsense]`, "spec.addresses[1]: Invalid value"},
		{"duplicate", `addresses: [192.0.2.0/24, 192.0.2.0/24]`, `spec.addresses[1]: Duplicate value: "192.0.2.0/24"`},
		{"too long", `addresses: ["` + strings.Repeat("1", 101) + `"]`, "spec.addresses[0]: Too long"},
		{"unknown field", `{addresses: [192.0.2.0/24], adresses: []}`, "unknown fields: spec.adresses"},

		{"allocation", `{addresses: [192.0.2.0/24], serviceAllocation: {priority: 10, namespaces: [shop],
			namespaceSelectors: [{matchLabels: {tier: front}}], serviceSelectors: [{matchExpressions: [{key: app, operator: Exists}]}]}}`, ""},
		{"namespace with capitals", `{addresses: [192.0.2.0/24], serviceAllocation: {namespaces: [Shop]}}`, `"Shop" is no name of a namespace: write it in lower case`},
		{"namespace twice", `{addresses: [192.0.2.0/24], serviceAllocation: {namespaces: [shop, shop]}}`, `namespaces[1]: Duplicate value: "shop"`},
		{"strategy", `{addresses: [192.0.2.0/24], strategy: LeastRecentlyUsed}`, ""},
		{"unknown strategy", `{addresses: [192.0.2.0/24], strategy: Highest}`, `spec.strategy: Unsupported value: "Highest": supported values: "Lowest", "Random", "LeastRecentlyUsed"`},
		{"sharing", `{addresses: [192.0.2.0/24], shareAcrossNamespaces: true}`, ""},
		{"quotas", `{addresses: [192.0.2.0/24], namespaceQuotas: [{namespaces: [shop], addresses: 0}, {namespaceSelectors: [{matchLabels: {tier: front}}], addresses: 8}, {addresses: 2147483647}]}`, ""},
		{"quota without a number", `{addresses: [192.0.2.0/24], namespaceQuotas: [{namespaces: [shop]}]}`, "spec.namespaceQuotas[0].addresses: Required value"},
		{"quota below 0", `{addresses: [192.0.2.0/24], namespaceQuotas: [{addresses: -1}]}`, "addresses in body should be greater than or equal to 0"},
		{"quota for a namespace with capitals", `{addresses: [192.0.2.0/24], namespaceQuotas: [{addresses: 1, namespaces: [Shop]}]}`, `"Shop" is no name of a namespace: write it in lower case`},
		{"quota for a namespace twice", `{addresses: [192.0.2.0/24], namespaceQuotas: [{addresses: 1, namespaces: [a, a]}]}`, `namespaces[1]: Duplicate value: "a"`},
		{"priority is no number", `{addresses: [192.0.2.0/24], serviceAllocation: {priority: high}}`, "must be of type integer"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, pools, "IPAddressPool", tc.spec, tc.want) })
	}
}

func TestAddressReservationSchema(t *testing.T) {
	reservations := loadCRDs(t)["AddressReservation"]
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"for nobody", `addresses: [192.0.2.10/32, "2001:db8::10-2001:db8::20"]`, ""},
		{"for a namespace", `{addresses: [192.0.2.10/32], for: {namespace: shop}}`, ""},
		{"for a Service", `{addresses: [192.0.2.10/32], for: {namespace: shop, service: web}}`, ""},
		{"for a Service whose name begins with a digit", `{addresses: [192.0.2.10/32], for: {namespace: shop, service: 2web}}`, ""},

		{"no addresses", `for: {namespace: shop}`, "spec.addresses: Required value"},
		{"single address", `addresses: [192.0.2.10]`, "192.0.2.10 is a single address: write 192.0.2.10/32"},
		{"reversed", `addresses: [192.0.2.20-192.0.2.10]`, "runs backwards: write 192.0.2.10-192.0.2.20"},
		{"address twice", `addresses: [192.0.2.10/32, 192.0.2.10/32]`, `spec.addresses[1]: Duplicate value: "192.0.2.10/32"`},
		{"for nobody in particular", `{addresses: [192.0.2.10/32], for: {}}`, "spec.for.namespace: Required value"},
		{"Service without its namespace", `{addresses: [192.0.2.10/32], for: {service: web}}`, "spec.for.namespace: Required value"},
		{"empty namespace", `{addresses: [192.0.2.10/32], for: {namespace: ""}}`, `"" is no name of a namespace`},
		{"Service with its namespace", `{addresses: [192.0.2.10/32], for: {namespace: shop, service: shop/web}}`, `"shop/web" is no name of a Service: write it in lower case, with letters, digits and dashes, 63 at most, without the namespace`},
		{"unknown field", `{addresses: [192.0.2.10/32], for: {namespace: shop, name: web}}`, "unknown fields: spec.for.name"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, reservations, "AddressReservation", tc.spec, tc.want) })
	}
}

func TestL2AdvertisementSchema(t *testing.T) {
	advertisements := loadCRDs(t)["L2Advertisement"]
	for _, tc := range []struct {
		name, spec string
		want       string // part of the answer; "" when it is accepted
	}{
		{"empty", `{}`, ""},
		{"pools", `ipAddressPools: [front, back.office-2]`, ""},
		{"pool selectors", `ipAddressPoolSelectors: [{matchLabels: {zone: a}}]`, ""},
		{"interfaces", `interfaces: [eth0, bond0.100, enp0s31f6, br-lan, abcdefghijklmno]`, ""},
		{"preferences", `preferredNodeSelectors: [{weight: 1, preference: {}}, {weight: 100, preference: {matchLabels: {rack: a}}}]`, ""},

		{"pool with capitals", `ipAddressPools: [Front]`, `"Front" is no name of an IPAddressPool: write it in lower case`},
		{"pool with a space", `ipAddressPools: ["front "]`, `"front " is no name of an IPAddressPool: write it in lower case`},
		{"pool without a name", `ipAddressPools: [""]`, `"" is no name of an IPAddressPool`},
		{"pool twice", `ipAddressPools: [a, a]`, `spec.ipAddressPools[1]: Duplicate value: "a"`},
		{"interface with a space", `interfaces: ["eth 0"]`, `"eth 0" is no name of an interface: write one name`},
		{"interface list in one string", `interfaces: ["eth0,eth1@if2"]`, "is no name of an interface: write one name"},
		{"interface as ip link prints it", `interfaces: [eth0@if12]`, "without the part from the @ that ip link shows"},
		{"interface pattern", `interfaces: ["eth*"]`, "patterns are not understood"},
		{"interface of 16 characters", `interfaces: [abcdefghijklmnop]`, "of 15 characters at most"},
		{"empty interface", `interfaces: [""]`, "should be at least 1 chars long"},
		{"interface twice", `interfaces: [eth0, eth0]`, `spec.interfaces[1]: Duplicate value: "eth0"`},
		{"weight 0", `preferredNodeSelectors: [{weight: 0, preference: {}}]`, "weight in body should be greater than or equal to 1"},
		{"weight 101", `preferredNodeSelectors: [{weight: 101, preference: {}}]`, "weight in body should be less than or equal to 100"},
		{"preference without weight", `preferredNodeSelectors: [{preference: {}}]`, "weight: Required value"},
		{"weight without preference", `preferredNodeSelectors: [{weight: 5}]`, "preference: Required value"},
		{"selector that is no list", `nodeSelectors: role=edge`, "must be of type array"},
	} {
		t.Run(tc.name, func(t *testing.T) { expectAnswer(t, advertisements, "L2Advertisement", tc.spec, tc.want) })
	}
}

// TestSchemaCostOfFullPool admits the largest pool: of the costliest ranges, which are addresses that differ in the last bit, and with as
// many quotas as there may be.
func TestSchemaCostOfFullPool(t *testing.T) {
	pools := loadCRDs(t)["IPAddressPool"]
	var entries []string
	for i := range 512 {
		prefix := fmt.Sprintf("2001:0db8:0000:0000:0000:0000:192.0.%d.", i%256)
		entries = append(entries, fmt.Sprintf("%q", fmt.Sprintf("%s%d - %s%d", prefix, i/256*2+100, prefix, i/256*2+101)))
	}
	var names, quotas []string
	for i := range 32 {
		names = append(names, fmt.Sprintf("%s-%d", strings.Repeat("n", 60), i+10))
	}
	for range 64 {
		quotas = append(quotas, "{addresses: 1, namespaces: ["+strings.Join(names, ", ")+"]}")
	}
	expectAnswer(t, pools, "IPAddressPool", "{addresses: ["+strings.Join(entries, ", ")+"], namespaceQuotas: ["+strings.Join(quotas, ", ")+"]}", "")
}

// TestSchemaAgreesWithParseRange demands that the schema lets exactly those ranges in that the programs can read.
func TestSchemaAgreesWithParseRange(t *testing.T) {
	pools := loadCRDs(t)["IPAddressPool"]
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		// Few values for each byte, so that two addresses often begin alike.
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 127, 128, 255}), size, size).Draw(t, "bytes")
		a, _ := netip.AddrFromSlice(b)
		return a
	})
	entry := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			first := addr.Draw(t, "first")
			if !rapid.Bool().Draw(t, "near") {
				return first.String() + "-" + addr.Draw(t, "last").String()
			}
			b := first.AsSlice()
			bit := rapid.IntRange(0, len(b)*8-1).Draw(t, "bit")
			b[bit/8] ^= 1 << (bit % 8)
			last, _ := netip.AddrFromSlice(b)
			return first.String() + " - " + last.String()
		}),
		rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprintf("%s/%d", addr.Draw(t, "address"), rapid.IntRange(-1, 130).Draw(t, "length"))
		}),
		rapid.StringMatching(`[0-9a-f:./ -]{0,40}`),
	)
	rapid.Check(t, func(rt *rapid.T) {
		text := entry.Draw(rt, "entry")
		_, err := config.ParseRange(text)
		object := map[string]any{
			"apiVersion": "steelyard.io/v1beta1", "kind": "IPAddressPool", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"addresses": []any{text}},
		}
		if answer := pools.admit(t, object); (answer == "") != (err == nil) {
			rt.Errorf("%q: the schema says %q, ParseRange says %v", text, answer, err)
		}
	})
}

func expectAnswer(t *testing.T, c *crd, kind, spec, want string) {
	t.Helper()
	object := map[string]any{}
	text := "apiVersion: steelyard.io/v1beta1\nkind: " + kind + "\nmetadata: {name: x}\n"
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	parsed := map[string]any{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(spec, "\t", "")), &parsed); err != nil {
		t.Fatal(err)
	}
	object["spec"] = integers(parsed)
	answer := c.admit(t, object)
	if (want == "") != (answer == "") || !strings.Contains(answer, want) {
		t.Errorf("the answer is\n\t%q, want\n\t%q", answer, want)
	}
}

// integers makes whole numbers integers, as the API server's decoder does.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = integers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case float64:
		if v == math.Trunc(v) {
			return int64(v)
		}
	}
	return v
}
