package plan

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/golden"
)

// situation is a file of testdata.
type situation struct {
	Cluster []json.RawMessage `json:"cluster"`
	Put     []json.RawMessage `json:"put"`
	Delete  []Ref             `json:"delete"`
	Prune   bool              `json:"prune"`
	Harms   bool              `json:"harms"`
}

var later = metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))

// TestPlan compares the plan for each testdata/*.yaml with the golden file beside it, whatever the order of the objects.
func TestPlan(t *testing.T) {
	for _, file := range situations(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := load(t, file)
			p, after := s.plan(t)
			got := p.String()
			golden.Compare(t, strings.TrimSuffix(file, ".yaml")+".golden", got)
			if p.Harms() != s.Harms {
				t.Errorf("harms: %v", p.Harms())
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				random.Shuffle(len(s.Cluster), func(i, j int) { s.Cluster[i], s.Cluster[j] = s.Cluster[j], s.Cluster[i] })
				random.Shuffle(len(s.Put), func(i, j int) { s.Put[i], s.Put[j] = s.Put[j], s.Put[i] })
				if other, _ := s.plan(t); other.String() != got {
					t.Fatalf("in another order the plan is\n%s", other.String())
				}
			}
			settled(t, p, after)
		})
	}
}

// settled: once the Services are as the plan says, the same configuration changes nothing any more, also for a controller that starts anew.
func settled(t *testing.T, p *Plan, after *cluster.Snapshot) {
	t.Helper()
	next := *after
	next.Services = slices.Clone(next.Services)
	for i := range next.Services {
		svc := &next.Services[i]
		for _, s := range p.Services {
			if s.Namespace != svc.Namespace || s.Name != svc.Name {
				continue
			}
			svc.Status = corev1.ServiceStatus{}
			for _, a := range s.To {
				svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String()})
			}
		}
	}
	nothing := next
	nothing.Pools = nil
	for what, before := range map[string]*cluster.Snapshot{"applied again": &next, "adopted anew": &nothing} {
		for _, s := range New(before, &next).Services {
			if s.Outcome != Keeps {
				t.Errorf("%s, %s/%s %s: %v -> %v, %s", what, s.Namespace, s.Name, s.Outcome, s.From, s.To, s.Message)
			}
		}
	}
}

func TestDeleteOfWhatIsNotThere(t *testing.T) {
	edit := Edit{Delete: []Ref{{"IPAddressPool", "nowhere"}}}
	_, err := edit.Apply(&cluster.Snapshot{}, later)
	if err == nil || err.Error() != `there is no IPAddressPool "nowhere" to delete` {
		t.Errorf("answered %v", err)
	}
}

// TestJSON: scripts read these names.
func TestJSON(t *testing.T) {
	s := load(t, "testdata/pool-deleted.yaml")
	p, _ := s.plan(t)
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "testdata/pool-deleted.json", string(text))
}

func situations(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	return files
}

func load(t *testing.T, file string) situation {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s situation
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *situation) plan(t *testing.T) (*Plan, *cluster.Snapshot) {
	t.Helper()
	before := &cluster.Snapshot{}
	for _, text := range s.Cluster {
		if err := before.Put(decode(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	edit := Edit{Delete: s.Delete, Prune: s.Prune}
	for _, text := range s.Put {
		edit.Put = append(edit.Put, decode(t, text))
	}
	after, err := edit.Apply(before, later)
	if err != nil {
		t.Fatal(err)
	}
	return New(before, after), after
}

var codecs = serializer.NewCodecFactory(cluster.Scheme(), serializer.EnableStrict)

func decode(t *testing.T, text []byte) client.Object {
	t.Helper()
	object, _, err := codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return object.(client.Object)
}
