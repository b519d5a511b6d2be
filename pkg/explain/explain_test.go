package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/golden"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

// situation is the first document of a file in testdata; the others are objects that are added to those of the bases, or take their place.
type situation struct {
	// From are the files that it starts from, base.yaml unless it says otherwise.
	From []string `json:"from"`
	// Without are objects of the bases that do not exist: Kind/name.
	Without []string `json:"without"`
	// Gaps are resources that may not be read.
	Gaps []string `json:"gaps"`
	// Views are what speakers say of the Service, by node.
	Views map[string]view.Service `json:"views"`
	// Speakers are what they say of themselves.
	Speakers map[string]view.Speaker `json:"speakers"`
	// Holders: pools are shown with who has which address.
	Holders bool `json:"holders"`
}

var decoder = serializer.NewCodecFactory(cluster.Scheme(), serializer.EnableStrict).UniversalDeserializer()

// load returns the situation in a file, and the snapshot of the cluster in it.
func load(t *testing.T, file string) (situation, *cluster.Snapshot) {
	t.Helper()
	all := documents(t, file)
	var is situation
	if err := yaml.UnmarshalStrict(all[0], &is); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if is.From == nil {
		is.From = []string{"base.yaml"}
	}
	s := &cluster.Snapshot{}
	for _, gap := range is.Gaps {
		s.Gaps = append(s.Gaps, cluster.Gap{Resource: gap, Why: "you may not list them: ask for that right"})
	}
	for _, base := range is.From {
		for _, document := range documents(t, filepath.Join("testdata", base)) {
			put(t, s, document, is)
		}
	}
	for _, document := range all[1:] {
		put(t, s, document, situation{})
	}
	return is, s
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(text, []byte("\n---\n"))
}

func put(t *testing.T, s *cluster.Snapshot, document []byte, is situation) {
	t.Helper()
	object, kind, err := decoder.Decode(document, nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	name := object.(client.Object).GetName()
	for _, without := range is.Without {
		if without == kind.Kind+"/"+name {
			return
		}
	}
	plural := strings.ToLower(kind.Kind) + "s"
	for _, gap := range is.Gaps {
		if resource, _, _ := strings.Cut(gap, "."); resource == plural {
			return
		}
	}
	if err := s.Put(object.(client.Object)); err != nil {
		t.Fatal(err)
	}
}

func TestService(t *testing.T) {
	each(t, "service-*.yaml", 20, func(is situation, s *cluster.Snapshot) fmt.Stringer {
		e, ok := Service(s, "shop", "web", is.Views)
		if !ok {
			t.Fatal("there is no such Service")
		}
		return e
	})
}

// TestShuffled explains with all objects in another order.
func TestShuffled(t *testing.T) {
	for _, file := range []string{"service-dual-stack-both-protocols", "service-no-eligible-node", "service-sessions-down", "service-session-refused", "service-several-owners"} {
		is, s := load(t, filepath.Join("testdata", file+".yaml"))
		want, _ := Service(s, "shop", "web", is.Views)
		for range 100 {
			shuffle(s.Nodes)
			shuffle(s.Speakers)
			shuffle(s.Announcements)
			shuffle(s.Sessions)
			shuffle(s.BGPPeers)
			shuffle(s.EndpointSlices)
			if got, _ := Service(s, "shop", "web", is.Views); got.String() != want.String() {
				t.Fatalf("%s: it says\n%s\nand said\n%s", file, got, want)
			}
		}
	}
}

func shuffle[T any](all []T) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
}

func TestStatus(t *testing.T) {
	each(t, "status-*.yaml", 8, func(is situation, s *cluster.Snapshot) fmt.Stringer { return Status(s, is.Speakers) })
}

func TestPools(t *testing.T) {
	each(t, "pools-*.yaml", 4, func(is situation, s *cluster.Snapshot) fmt.Stringer { return PoolsOf(s, is.Holders) })
}

// each compares what is said of at least n situations with the golden files, and makes sure that it can be encoded.
func each(t *testing.T, pattern string, n int, say func(situation, *cluster.Snapshot) fmt.Stringer) {
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) < n {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			said := say(load(t, file))
			golden.Compare(t, name+".golden", said.String())
			if encoded, err := json.Marshal(said); err != nil || !json.Valid(encoded) {
				t.Error("it can't be encoded:", err)
			}
		})
	}
}
