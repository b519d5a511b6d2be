package ipam

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/golden"
)

// scenario is one of testdata/allocator.yaml, where the fields are explained.
type scenario struct {
	Name         string
	Namespaces   map[string]labels.Set
	Pools        []poolObject
	Reservations []reservationObject
	Steps        []scenarioStep
}

type poolObject struct {
	Name string `json:"name"`
	v1beta1.IPAddressPoolSpec
}

type reservationObject struct {
	Name string `json:"name"`
	v1beta1.AddressReservationSpec
}

type scenarioStep struct {
	Ask, Address, Pool, Families, Policy, Key, Backend, Ports string
	Labels                                                    labels.Set
	Gets, Lost                                                string
	Waits                                                     Reason
	Eases                                                     bool

	Release      string
	Pools        []poolObject
	Reservations *[]reservationObject
	Counts       map[string]string
	Unordered    []scenarioStep
}

func named(text string) types.NamespacedName {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		namespace, name = "default", text
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func (s *scenarioStep) request(namespaces map[string]labels.Set) Request {
	r := Request{Service: named(s.Ask), Labels: s.Labels, Policy: corev1.IPFamilyPolicySingleStack, Families: []Family{ipv4}}
	r.NamespaceLabels = namespaces[r.Service.Namespace]
	switch s.Families {
	case "dual":
		r.Families, r.Policy = []Family{ipv4, ipv6}, require
	case "IPv6":
		r.Families = []Family{ipv6}
	}
	if s.Policy != "" {
		r.Policy = corev1.IPFamilyPolicy(s.Policy)
	}
	r.Addresses = []Wish{{s.Address, "annotation steelyard.io/loadBalancerIPs"}}
	r.Pool = Wish{s.Pool, "annotation steelyard.io/address-pool"}
	r.Sharing = Sharing{Key: s.Key, Backend: s.Backend}
	for text := range strings.SplitSeq(s.Ports, ",") {
		var number int32
		protocol, _, _ := strings.Cut(text, "/")
		if _, err := fmt.Sscanf(strings.TrimPrefix(text, protocol), "/%d", &number); err == nil {
			r.Sharing.Ports = append(r.Sharing.Ports, Port{corev1.Protocol(strings.ToUpper(protocol)), number})
		}
	}
	return r
}

// stage is where a scenario is played.
type stage struct {
	*testing.T
	*Allocator
	scenario
	config   *config.Config
	pristine *config.Config // equal to config, and the allocator does not know it
	statuses map[types.NamespacedName]*Request
	age      []types.NamespacedName
	shuffled *rand.Rand // nil to play as it is written
	said     []string
}

func (s *stage) configure() {
	parse := func() *config.Config {
		var r config.Resources
		for _, p := range s.scenario.Pools {
			r.Pools = append(r.Pools, v1beta1.IPAddressPool{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Spec: p.IPAddressPoolSpec})
		}
		for _, p := range s.scenario.Reservations {
			r.Reservations = append(r.Reservations, v1beta1.AddressReservation{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Spec: p.AddressReservationSpec})
		}
		if s.shuffled != nil {
			s.shuffled.Shuffle(len(r.Pools), reflect.Swapper(r.Pools))
			s.shuffled.Shuffle(len(r.Reservations), reflect.Swapper(r.Reservations))
		}
		cfg, faults := config.Parse(r)
		if len(faults) > 0 {
			s.Fatal(faults)
		}
		return cfg
	}
	s.config, s.pristine = parse(), parse()
}

// play plays a step, and the controller's part in it: what the allocator says becomes the Service's status.
func (s *stage) play(step *scenarioStep) {
	switch {
	case step.Ask != "":
		r := step.request(s.Namespaces)
		if old := s.statuses[r.Service]; old != nil {
			r.Current = old.Current
		} else {
			s.age = append(s.age, r.Service)
		}
		s.ask(step, &r)
	case step.Release != "":
		service := named(step.Release)
		s.Allocator.Release(service)
		delete(s.statuses, service)
		s.age = slices.DeleteFunc(s.age, func(n types.NamespacedName) bool { return n == service })
	case step.Pools != nil:
		s.scenario.Pools = step.Pools
		s.configure()
		s.SetPools(s.config.Pools, s.config.Reservations)
	case step.Reservations != nil:
		s.scenario.Reservations = *step.Reservations
		s.configure()
		s.SetPools(s.config.Pools, s.config.Reservations)
	case step.Counts != nil:
		counts := map[string]string{}
		for _, stats := range s.Stats() {
			if stats.Total > 0 {
				counts[stats.Pool] += fmt.Sprintf(", %d of %d %s", stats.InUse, stats.Total, stats.Family)
			}
		}
		for pool, want := range step.Counts {
			if got := strings.TrimPrefix(counts[pool], ", "); got != want {
				s.Errorf("pool %s: %s, want %s", pool, got, want)
			}
		}
	case step.Unordered != nil:
		order := slices.Clone(step.Unordered)
		if s.shuffled != nil {
			s.shuffled.Shuffle(len(order), reflect.Swapper(order))
		}
		for i := range order {
			s.play(&order[i])
		}
	default:
		s.Fatalf("what is this step? %+v", step)
	}
	check(s, s.Allocator)
	if s.shuffled != nil && s.shuffled.IntN(2) == 0 {
		s.restart()
	}
}

func (s *stage) ask(step *scenarioStep, r *Request) {
	want := Result{Reason: step.Waits, Lost: step.Lost, Eased: step.Eases}
	if want.Reason == "" {
		want.Reason = Assigned
	}
	got := s.Assign(*r)
	if text(got.Addrs) != step.Gets || got.Reason != want.Reason || got.Lost != want.Lost || got.Eased != want.Eased {
		s.Errorf("%s gets %q, %s, lost %q, eased %v: %s\nwant %q, %s, lost %q, eased %v", step.Ask,
			text(got.Addrs), got.Reason, got.Lost, got.Eased, got.Message, step.Gets, want.Reason, want.Lost, want.Eased)
	}
	if got.Reason != Assigned || got.Lost != "" {
		said := fmt.Sprintf("%s: %s", got.Reason, got.Message)
		if got.Lost != "" {
			said += "\n\tno longer " + got.Lost
		}
		s.said = append(s.said, said)
	}
	s.Settle(r.Service, got.Addrs)
	r.Current = got.Addrs
	s.statuses[r.Service] = r
	if again := s.Assign(*r); again.Reason != got.Reason || again.Message != got.Message || !slices.Equal(again.Addrs, got.Addrs) || again.Eased || again.Lost != "" {
		s.Errorf("%s the second time: %+v, first %+v", step.Ask, again, got)
	}
}

func (s *stage) restart() {
	fresh := New()
	fresh.SetPools(s.config.Pools, s.config.Reservations)
	for pool, released := range s.Released() {
		fresh.Remember(pool, released)
	}
	for _, service := range s.age {
		r := s.statuses[service]
		fresh.Adopt(service, r.Sharing, r.Current)
	}
	s.Allocator = fresh
}

// perform plays all of a scenario, and returns what it comes to.
func perform(t *testing.T, scene scenario, shuffled *rand.Rand) (end string, said []string) {
	s := &stage{T: t, Allocator: New(), scenario: scene, statuses: map[types.NamespacedName]*Request{}, shuffled: shuffled}
	s.configure()
	s.SetPools(s.config.Pools, s.config.Reservations)
	for i := range scene.Steps {
		s.play(&scene.Steps[i])
	}
	if !reflect.DeepEqual(s.config, s.pristine) {
		t.Error("the allocator has changed the configuration")
	}
	return state(s.Allocator), s.said
}

func TestScenarios(t *testing.T) {
	data, err := os.ReadFile("testdata/allocator.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var scenes []scenario
	if err := yaml.UnmarshalStrict(data, &scenes); err != nil {
		t.Fatal(err)
	}
	var messages strings.Builder
	for _, scene := range scenes {
		t.Run(scene.Name, func(t *testing.T) {
			want, said := perform(t, scene, nil)
			fmt.Fprintf(&messages, "%s\n\n", scene.Name)
			for _, message := range said {
				fmt.Fprintf(&messages, "\t%s\n\n", message)
			}
			for seed := range uint64(100) {
				if got, _ := perform(t, scene, rand.New(rand.NewPCG(seed, 0))); got != want {
					t.Errorf("it comes to\n%s\ninstead of\n%s", got, want)
				}
				if t.Failed() {
					t.Fatalf("shuffled by %d", seed)
				}
			}
		})
	}
	readByAPerson(t, messages.String())
}

// readByAPerson compares what Services were told with what a person has read, and fails if there are reasons that none of them has.
func readByAPerson(t *testing.T, got string) {
	for _, reason := range []Reason{
		AssignedOneFamily, InvalidRequest, NoSecondFamily, UnknownPool, PoolNotAllowed, WrongFamily, OutsidePools, AvoidedAddress,
		AddressReserved, AddressTaken, CannotShare, NoPools, NoPoolForService, FamilyUnavailable, PoolExhausted, QuotaExceeded,
	} {
		if !strings.Contains(got, "\t"+string(reason)+": ") {
			t.Errorf("no scenario has %s", reason)
		}
	}
	golden.Compare(t, "testdata/messages.txt", got)
}
