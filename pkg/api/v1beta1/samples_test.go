package v1beta1_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// TestSamples admits every object of config/samples, and demands that each file works by itself and that all work together.
func TestSamples(t *testing.T) {
	crds := loadCRDs(t)
	files, err := filepath.Glob("../../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	all := config.Resources{Namespace: "steelyard-system", Secrets: map[string]corev1.Secret{}}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(data, []byte("# ")) {
				t.Error("the file doesn't begin with a comment that says what it is an example of")
			}
			here := config.Resources{Namespace: all.Namespace, Secrets: map[string]corev1.Secret{}}
			for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
				admitSample(t, crds, document, &here)
			}
			expectNoFaults(t, here)
			all.Pools = append(all.Pools, here.Pools...)
			all.Reservations = append(all.Reservations, here.Reservations...)
			all.L2Advertisements = append(all.L2Advertisements, here.L2Advertisements...)
			all.BGPAdvertisements = append(all.BGPAdvertisements, here.BGPAdvertisements...)
			all.BGPPeers = append(all.BGPPeers, here.BGPPeers...)
			all.BFDProfiles = append(all.BFDProfiles, here.BFDProfiles...)
			all.Communities = append(all.Communities, here.Communities...)
			maps.Copy(all.Secrets, here.Secrets)
		})
	}
	expectNoFaults(t, all)
	if len(all.Reservations) == 0 || len(all.BGPAdvertisements) == 0 || len(all.BGPPeers) == 0 || len(all.BFDProfiles) == 0 || len(all.Communities) == 0 {
		t.Error("a kind that operators write has no sample")
	}
}

func admitSample(t *testing.T, crds map[string]*crd, document []byte, into *config.Resources) {
	t.Helper()
	object := map[string]any{}
	if err := yaml.Unmarshal(document, &object); err != nil {
		t.Fatal(err)
	}
	kind, _ := object["kind"].(string)
	if kind != "Service" && kind != "Secret" {
		if crds[kind] == nil {
			t.Fatalf("the sample has an object of kind %q, and there is no such CRD", kind)
		}
		if answer := crds[kind].admit(t, integers(object).(map[string]any)); answer != "" {
			t.Errorf("%s: %s", kind, answer)
		}
	}
	switch kind {
	case "IPAddressPool":
		into.Pools = append(into.Pools, decoded[v1beta1.IPAddressPool](t, document))
	case "AddressReservation":
		into.Reservations = append(into.Reservations, decoded[v1beta1.AddressReservation](t, document))
	case "L2Advertisement":
		into.L2Advertisements = append(into.L2Advertisements, decoded[v1beta1.L2Advertisement](t, document))
	case "BGPAdvertisement":
		into.BGPAdvertisements = append(into.BGPAdvertisements, decoded[v1beta1.BGPAdvertisement](t, document))
	case "BGPPeer":
		into.BGPPeers = append(into.BGPPeers, decoded[v1beta1.BGPPeer](t, document))
	case "BFDProfile":
		into.BFDProfiles = append(into.BFDProfiles, decoded[v1beta1.BFDProfile](t, document))
	case "Community":
		into.Communities = append(into.Communities, decoded[v1beta1.Community](t, document))
	case "Secret":
		secret := decoded[corev1.Secret](t, document)
		secret.Data = map[string][]byte{}
		for key, value := range secret.StringData { // as the API server does
			secret.Data[key] = []byte(value)
		}
		into.Secrets[secret.Name] = secret
	case "Service":
		decoded[corev1.Service](t, document)
	}
}

func decoded[T any](t *testing.T, document []byte) T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func expectNoFaults(t *testing.T, r config.Resources) {
	t.Helper()
	_, faults := config.Parse(r)
	for _, f := range faults {
		t.Error(f)
	}
}
