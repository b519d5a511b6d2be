package explain

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

var update = flag.Bool("update", false, "write the golden files")

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
		s.Gaps = append(s.Gaps, cluster.Gap{Resource: gap, Why: "you may not read them: ask for the right to list " + gap})
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
	files, err := filepath.Glob("testdata/service-*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			is, s := load(t, file)
			e, ok := Service(s, "shop", "web", is.Views)
			if !ok {
				t.Fatal("there is no such Service")
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", e.String())
			if encoded, err := json.Marshal(e); err != nil || !json.Valid(encoded) {
				t.Error("it can't be encoded:", err)
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it says\n%s\nand should say\n%s", got, want)
	}
}
