package config

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// resources reads the objects of a case, one to a line:
//
//	pool|reservation|bgpad|community <name> <age in minutes> <spec>
//	ad|peer|bfd <name> <spec>
//	node <name> <label=value,... or -> <addresses>
//	secret <name> <type> <password, with \n for a line break, or '' for an empty one>
//
// Pools whose names begin with dmz have the label network=dmz, and reservations whose names begin with kept. are the controller's. Secrets and nodes are known when there is one.
func resources(t *testing.T, text string) Resources {
	t.Helper()
	r := Resources{Namespace: "steelyard"}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		name, rest, _ := strings.Cut(rest, " ")
		meta := metav1.ObjectMeta{Name: name}
		switch kind {
		case "pool":
			pool := v1beta1.IPAddressPool{ObjectMeta: aged(t, meta, &rest)}
			if strings.HasPrefix(name, "dmz") {
				pool.Labels = map[string]string{"network": "dmz"}
			}
			mustUnmarshal(t, rest, &pool.Spec)
			r.Pools = append(r.Pools, pool)
		case "reservation":
			reservation := v1beta1.AddressReservation{ObjectMeta: aged(t, meta, &rest)}
			if strings.HasPrefix(name, "kept.") {
				reservation.Labels = map[string]string{v1beta1.LabelKept: "true"}
			}
			mustUnmarshal(t, rest, &reservation.Spec)
			r.Reservations = append(r.Reservations, reservation)
		case "ad":
			ad := v1beta1.L2Advertisement{ObjectMeta: meta}
			mustUnmarshal(t, rest, &ad.Spec)
			r.L2Advertisements = append(r.L2Advertisements, ad)
		case "bgpad":
			ad := v1beta1.BGPAdvertisement{ObjectMeta: aged(t, meta, &rest)}
			mustUnmarshal(t, rest, &ad.Spec)
			r.BGPAdvertisements = append(r.BGPAdvertisements, ad)
		case "peer":
			peer := v1beta1.BGPPeer{ObjectMeta: meta}
			mustUnmarshal(t, rest, &peer.Spec)
			r.BGPPeers = append(r.BGPPeers, peer)
		case "bfd":
			profile := v1beta1.BFDProfile{ObjectMeta: meta}
			mustUnmarshal(t, rest, &profile.Spec)
			r.BFDProfiles = append(r.BFDProfiles, profile)
		case "community":
			community := v1beta1.Community{ObjectMeta: aged(t, meta, &rest)}
			mustUnmarshal(t, rest, &community.Spec)
			r.Communities = append(r.Communities, community)
		case "secret":
			typ, password, ok := strings.Cut(rest, " ")
			secret := corev1.Secret{ObjectMeta: meta, Type: corev1.SecretType(typ)}
			if ok {
				secret.Data = map[string][]byte{"password": []byte(strings.NewReplacer(`\n`, "\n", "''", "").Replace(password))}
			}
			if r.Secrets == nil {
				r.Secrets = map[string]corev1.Secret{}
			}
			r.Secrets[name] = secret
		case "node":
			text, addresses, _ := strings.Cut(rest, " ")
			node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: set(t, strings.TrimPrefix(text, "-"))}}
			for _, a := range strings.Fields(addresses) {
				node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
			}
			r.Nodes = append(r.Nodes, node)
		default:
			t.Fatalf("no such object: %s", line)
		}
	}
	return r
}

// aged takes the age from the beginning of the rest of a line.
func aged(t *testing.T, meta metav1.ObjectMeta, rest *string) metav1.ObjectMeta {
	t.Helper()
	age, spec, _ := strings.Cut(*rest, " ")
	minutes, err := time.ParseDuration(age + "m")
	if err != nil {
		t.Fatal(err)
	}
	*rest = spec
	meta.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-minutes))
	return meta
}

func mustUnmarshal(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func set(t *testing.T, text string) labels.Set {
	t.Helper()
	s, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
