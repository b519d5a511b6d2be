package config

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// scenario is what comes of some objects.
type scenario struct {
	Name    string
	Objects string // as resources reads them
	Config  string // summary
	Faults  string // "kind name field reason: part of the message", after "warning" where it is one
}

// TestScenarios parses the objects of each scenario, and then 100 times in another order, which must make no difference. (G16)
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var scenarios []scenario
		mustUnmarshal(t, string(text), &scenarios)
		for _, s := range scenarios {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+s.Name, s.run)
		}
	}
}

func (s scenario) run(t *testing.T) {
	r := resources(t, s.Objects)
	cfg, faults := Parse(r)
	if diff := cmp.Diff(strings.TrimSpace(s.Config), strings.Join(summary(cfg, r.Nodes), "\n")); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	expectFaults(t, s.Faults, faults)
	for seed := range uint64(100) {
		shuffle(&r, rand.New(rand.NewPCG(seed, 0)))
		again, faultsAgain := Parse(r)
		if diff := cmp.Diff(cfg, again, sameConfig) + cmp.Diff(faults, faultsAgain); diff != "" {
			t.Fatalf("in another order (seed %d):\n%s", seed, diff)
		}
	}
}

// summary is a line for each object that is in use: what the programs work with.
func summary(cfg *Config, nodes []corev1.Node) []string {
	var out []string
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, p := range cfg.Pools {
		strategy := ""
		if p.Strategy != v1beta1.StrategyLowest {
			strategy = " " + string(p.Strategy)
		}
		line("pool %s %v%s", p.Name, p.Ranges, strategy)
	}
	for _, r := range cfg.Reservations {
		whom := "nobody"
		if r.Namespace != "" {
			whom = r.Namespace + "/" + r.Service
		}
		common := ""
		if len(r.Common) > 0 {
			common = fmt.Sprintf(" and %v in common", r.Common)
		}
		line("reservation %s %v%s for %s", r.Name, r.Ranges, common, whom)
	}
	for _, a := range cfg.L2Advertisements {
		weights := ""
		for _, n := range nodes {
			if w := a.Weight(labels.Set(n.Labels)); w > 0 {
				weights += fmt.Sprintf(" %s=%d", n.Name, w)
			}
		}
		if weights != "" {
			weights = " prefers" + weights
		}
		line("ad %s %v%s", a.Name, a.Pools, weights)
	}
	for _, a := range cfg.BGPAdvertisements {
		line("bgpad %s %v to %v", a.Name, a.Pools, a.Peers)
	}
	for _, p := range cfg.BGPPeers {
		line("peer %s", p.Name)
	}
	return out
}

func expectFaults(t *testing.T, text string, faults []Fault) {
	t.Helper()
	kinds := map[string]string{
		KindIPAddressPool: "pool", KindAddressReservation: "reservation", KindL2Advertisement: "ad",
		KindBGPAdvertisement: "bgpad", KindBGPPeer: "peer", KindBFDProfile: "bfd", KindCommunity: "community",
	}
	var want []string
	if text != "" {
		want = strings.Split(strings.TrimSpace(text), "\n")
	}
	if len(faults) != len(want) {
		t.Fatalf("faults:\n%v\nwant:\n%s", faults, text)
	}
	for i, f := range faults {
		where, message, _ := strings.Cut(want[i], ": ")
		got := fmt.Sprintf("%s %s %s %s", kinds[f.Kind], f.Name, f.Field, f.Reason)
		if f.Warning {
			got = "warning " + got
		}
		if got != where || !strings.Contains(f.Message, message) {
			t.Errorf("fault %d is\n\t%s: %s, want\n\t%s", i, got, f.Message, want[i])
		}
		if (f.Type == ConditionNodeAddressInPool) != (f.Reason == ReasonNodeAddressInPool) {
			t.Errorf("fault %d: Type is %s", i, f.Type)
		}
	}
}

func shuffle(r *Resources, by *rand.Rand) {
	shuffled(r.Pools, by)
	shuffled(r.Reservations, by)
	shuffled(r.L2Advertisements, by)
	shuffled(r.BGPAdvertisements, by)
	shuffled(r.BGPPeers, by)
	shuffled(r.BFDProfiles, by)
	shuffled(r.Communities, by)
	shuffled(r.Nodes, by)
}

func shuffled[T any](s []T, by *rand.Rand) {
	by.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}
