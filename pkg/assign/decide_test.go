package assign

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

const (
	class  = v1beta1.DefaultLoadBalancerClass
	prefer = corev1.IPFamilyPolicyPreferDualStack
)

var now = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

// newService makes a Service of type LoadBalancer in an IPv4 cluster; the options change it.
func newService(name string, options ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeLoadBalancer,
			ClusterIPs:     []string{"172.20.0.1"},
			IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
		},
	}
	for _, option := range options {
		option(svc)
	}
	return svc
}

func annotated(key, value string) func(*corev1.Service) {
	return func(svc *corev1.Service) { metav1.SetMetaDataAnnotation(&svc.ObjectMeta, key, value) }
}

func clusterIPs(policy corev1.IPFamilyPolicy, ips ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy, svc.Spec.ClusterIPs = &policy, ips }
}

func withStatus(ips ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Status.LoadBalancer.Ingress = nil
		for _, ip := range ips {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
	}
}

func ofType(t corev1.ServiceType) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.Type = t }
}

func ofClass(c string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &c }
}

// conditioned has the condition of a Service that we gave its addresses.
func conditioned(reason ipam.Reason) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		meta.SetStatusCondition(&svc.Status.Conditions, metav1.Condition{
			Type: v1beta1.ConditionAddressAssigned, Status: conditionStatus(reason), Reason: string(reason), LastTransitionTime: now,
		})
	}
}

func newPool(name string, addresses ...string) v1beta1.IPAddressPool {
	return v1beta1.IPAddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1},
		Spec:       v1beta1.IPAddressPoolSpec{Addresses: addresses},
	}
}

func allocatorOf(pools ...v1beta1.IPAddressPool) *ipam.Allocator {
	cfg, _ := config.Parse(config.Resources{Pools: pools})
	a := ipam.New()
	a.SetPools(cfg.Pools, cfg.Reservations)
	return a
}

// told is what a decision comes down to: addresses, the condition's status and reason, the type of the Event.
func told(d Decision) string {
	var words []string
	for _, ingress := range d.Status.LoadBalancer.Ingress {
		words = append(words, ingress.IP)
		if ptr.Deref(ingress.IPMode, "") != corev1.LoadBalancerIPModeVIP {
			words = append(words, "without ipMode")
		}
	}
	if c := meta.FindStatusCondition(d.Status.Conditions, v1beta1.ConditionAddressAssigned); c != nil {
		words = append(words, string(c.Status), c.Reason)
	}
	if d.Event != nil {
		words = append(words, d.Event.Type)
	}
	return strings.Join(words, " ")
}

func TestDecide(t *testing.T) {
	pools := []v1beta1.IPAddressPool{
		newPool("prod", "192.0.2.0/30", "2001:db8::/126"), newPool("six", "2001:db8:6::/126"), newPool("spare", "198.51.100.0/30"),
	}
	for name, test := range map[string]struct {
		svc   *corev1.Service
		class string
		want  string
		says  string // part of the Event's message
	}{
		"lowest address":           {newService("a"), class, "192.0.2.0 True Assigned", ""},
		"of our class":             {newService("a", ofClass(class)), class, "192.0.2.0 True Assigned", ""},
		"of a configured class":    {newService("a", ofClass("x/y")), "x/y", "192.0.2.0 True Assigned", ""},
		"of another class":         {newService("a", ofClass("x/y")), class, "", ""},
		"classless only":           {newService("a", ofClass("")), "", "", ""},
		"classless, without class": {newService("a"), "", "192.0.2.0 True Assigned", ""},
		"ClusterIP":                {newService("a", ofType(corev1.ServiceTypeClusterIP)), class, "", ""},
		"no cluster address yet":   {newService("a", clusterIPs("SingleStack")), class, "", ""},
		"headless":                 {newService("a", clusterIPs("SingleStack", "None")), class, "", ""},
		"IPv6":                     {newService("a", clusterIPs("SingleStack", "fd00::1")), class, "2001:db8:: True Assigned", ""},
		"dual stack, IPv4 first":   {newService("a", clusterIPs("RequireDualStack", "fd00::1", "172.20.0.1")), class, "192.0.2.0 2001:db8:: True Assigned", ""},
		"dual stack that can't be": {
			newService("a", clusterIPs(prefer, "172.20.0.1", "fd00::1"), annotated(v1beta1.AnnotationPool, "six")), class,
			"2001:db8:6:: True AssignedOneFamily Normal", "no IPv4 address",
		},
		"our annotation wins": {
			newService("a", annotated(v1beta1.AnnotationPool, "spare"), annotated(v1beta1.AnnotationPoolMetalLB, "prod")), class,
			"198.51.100.0 True Assigned", "",
		},
		"metallb.io annotations": {
			newService("a", annotated(v1beta1.AnnotationAddressesMetalLB, "198.51.100.2")), class, "198.51.100.2 True Assigned", "",
		},
		"metallb.universe.tf annotations": {
			newService("a", annotated(v1beta1.AnnotationPoolMetalLBUniverse, "spare")), class, "198.51.100.0 True Assigned", "",
		},
		"spec.loadBalancerIP": {
			newService("a", func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = "192.0.2.3" }), class, "192.0.2.3 True Assigned", "",
		},
		"spec.loadBalancerIP and an annotation that agree": {
			newService("a", annotated(v1beta1.AnnotationAddresses, "192.0.2.3"), func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = "192.0.2.3" }), class,
			"192.0.2.3 True Assigned", "",
		},
		"unreadable address": {
			newService("a", annotated(v1beta1.AnnotationAddressesMetalLB, "192.0.2")), class,
			"False InvalidRequest Warning", `annotation metallb.io/loadBalancerIPs: "192.0.2" is not an IP address`,
		},
		"pool with capitals and spaces": {
			newService("a", annotated(v1beta1.AnnotationPool, " Prod")), class, "False InvalidRequest Warning", "write prod",
		},
		"status adopted as it is": {
			newService("a", withStatus("192.0.2.2")), class, "192.0.2.2 True Assigned", "",
		},
		"status from nowhere replaced": {
			newService("a", withStatus("203.0.113.7")), class, "192.0.2.0 True Assigned Normal", "no longer 203.0.113.7, which is in no pool",
		},
		"status with a host name replaced": {
			newService("a", func(svc *corev1.Service) {
				svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}, {IP: "rubbish"}}
			}), class, "192.0.2.0 True Assigned", "",
		},
		"status with three addresses": {
			newService("a", withStatus("192.0.2.2", "192.0.2.3", "2001:db8::1")), class, "192.0.2.2 True Assigned Normal", "no longer 192.0.2.3",
		},
		"status of the wrong family": {
			newService("a", withStatus("2001:db8::1")), class, "192.0.2.0 True Assigned Normal", "2001:db8::1",
		},
		"it waited, and has one now": {
			newService("a", conditioned(ipam.PoolExhausted)), class, "192.0.2.0 True Assigned Normal", "192.0.2.0 from pool prod",
		},
		"it still waits": {
			newService("a", conditioned(ipam.UnknownPool), annotated(v1beta1.AnnotationPool, "none")), class, "False UnknownPool", "",
		},
		"it waits for another reason": {
			newService("a", conditioned(ipam.PoolExhausted), annotated(v1beta1.AnnotationPool, "none")), class, "False UnknownPool Warning", "there is no IPAddressPool none",
		},
		"no longer of type LoadBalancer": {
			newService("a", ofType(corev1.ServiceTypeNodePort), withStatus("192.0.2.0"), conditioned(ipam.Assigned)), class, "", "",
		},
		"another's status": {
			newService("a", ofClass("x/y"), withStatus("192.0.2.0")), class, "192.0.2.0 without ipMode", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			allocator := allocatorOf(pools...)
			before := test.svc.DeepCopy()
			d := Decide(test.svc, test.class, nil, allocator, now)
			if got := told(d); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if d.Event != nil && (test.says == "" || !strings.Contains(d.Event.Message, test.says)) {
				t.Errorf("the event says %q, want %q", d.Event.Message, test.says)
			}
			if !equality.Semantic.DeepEqual(before, test.svc) {
				t.Error("the Service was changed")
			}

			test.svc.Status = d.Status
			allocator.Settle(client.ObjectKeyFromObject(test.svc), Addresses(test.svc))
			later := metav1.NewTime(now.Add(time.Hour))
			again := Decide(test.svc, test.class, nil, allocator, later)
			if again.Event != nil || !equality.Semantic.DeepEqual(again.Status, d.Status) {
				t.Errorf("the second time %q and %+v, event %+v", told(again), again.Status, again.Event)
			}
		})
	}
}

// Before there is a pool, somebody else may give Services their addresses, such as the load balancer that is about to be replaced.
func TestDecideWithoutPools(t *testing.T) {
	asksFor := annotated(v1beta1.AnnotationAddresses, "192.0.2.1")
	hostname := func(svc *corev1.Service) {
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}}
	}
	for name, test := range map[string]struct {
		svc  *corev1.Service
		want string
	}{
		"new":                                {newService("a"), "False NoPools Warning"},
		"of another":                         {newService("a", withStatus("192.0.2.1")), "192.0.2.1 without ipMode False NoPools Warning"},
		"of another, and it was told":        {newService("a", withStatus("192.0.2.1"), conditioned(ipam.NoPools)), "192.0.2.1 without ipMode False NoPools"},
		"of another, as it asked for":        {newService("a", withStatus("192.0.2.1"), asksFor), "192.0.2.1 without ipMode False NoPools Warning"},
		"of another, which it asked in vain": {newService("a", withStatus("192.0.2.1"), annotated(v1beta1.AnnotationPool, "prod")), "192.0.2.1 without ipMode False NoPools Warning"},
		"a host name":                        {newService("a", hostname), " without ipMode False NoPools Warning"},
		"no longer of type LoadBalancer":     {newService("a", ofType(corev1.ServiceTypeNodePort), withStatus("192.0.2.1"), conditioned(ipam.NoPools)), "192.0.2.1 without ipMode"},
		"ours":                               {newService("a", withStatus("192.0.2.1"), conditioned(ipam.Assigned)), "False NoPools Warning"},
		"ours, as it asked for":              {newService("a", withStatus("192.0.2.1"), asksFor, conditioned(ipam.Assigned)), "False NoPools Warning"},
		"ours until it has another":          {newService("a", withStatus("192.0.2.1"), asksFor, conditioned(ipam.AddressTaken)), "False NoPools Warning"},
	} {
		t.Run(name, func(t *testing.T) {
			allocator := allocatorOf()
			before := test.svc.DeepCopy()
			d := Decide(test.svc, class, nil, allocator, now)
			if got := told(d); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if len(d.Status.LoadBalancer.Ingress) > 0 && !equality.Semantic.DeepEqual(d.Status.LoadBalancer, before.Status.LoadBalancer) {
				t.Errorf("the status is %+v, want %+v", d.Status.LoadBalancer, before.Status.LoadBalancer)
			}
			c := meta.FindStatusCondition(d.Status.Conditions, v1beta1.ConditionAddressAssigned)
			if want := "there is no IPAddressPool: create one; until then, what another load balancer writes to status.loadBalancer is left alone"; c != nil && c.Message != want {
				t.Errorf("the condition says %q, want %q", c.Message, want)
			}

			test.svc.Status = d.Status
			allocator.Settle(client.ObjectKeyFromObject(test.svc), Addresses(test.svc))
			again := Decide(test.svc, class, nil, allocator, now)
			if again.Event != nil || !equality.Semantic.DeepEqual(again.Status, d.Status) {
				t.Errorf("the second time %q, event %+v", told(again), again.Event)
			}
		})
	}
}

// Whatever stands in a Service, it is answered, and the others are served.
func FuzzDecide(f *testing.F) {
	f.Add("192.0.2.1", "prod", "192.0.2.1", "172.20.0.1", "x")
	f.Add("2001:db8::1, 192.0.2.1", "Prod ", "", "fd00::1", "")
	f.Add("::ffff:192.0.2.1", "", "fe80::1%eth0", "None", "10.0.0.0/8")
	f.Fuzz(func(t *testing.T, wished, pool, ip, clusterIP, status string) {
		allocator := allocatorOf(newPool("prod", "192.0.2.0/30", "2001:db8::/126"))
		svc := newService("fuzz", annotated(v1beta1.AnnotationAddresses, wished), annotated(v1beta1.AnnotationPoolMetalLB, pool),
			clusterIPs(prefer, clusterIP, "fd00::1"), withStatus(status, ip))
		svc.Spec.LoadBalancerIP = ip
		d := Decide(svc, class, nil, allocator, now)
		svc.Status = d.Status
		allocator.Settle(client.ObjectKeyFromObject(svc), Addresses(svc))
		if again := Decide(svc, class, nil, allocator, now); again.Event != nil || !equality.Semantic.DeepEqual(again.Status, d.Status) {
			t.Errorf("the second time %q, first %q", told(again), told(d))
		}
		if other := Decide(newService("other"), class, nil, allocator, now); other.Reason != ipam.Assigned {
			t.Errorf("another Service: %s", told(other))
		}
	})
}

func ExampleDecide() {
	allocator := allocatorOf(newPool("prod", "192.0.2.10-192.0.2.10"))
	Decide(newService("first"), class, nil, allocator, now)
	d := Decide(newService("second"), class, nil, allocator, now)
	fmt.Println(d.Event.Type, d.Event.Reason)
	fmt.Println(d.Event.Message)
	// Output:
	// Warning PoolExhausted
	// pool prod is full, 1 of 1 IPv4 addresses are in use: widen spec.addresses of an IPAddressPool, add a pool, or delete a Service that no longer needs its address, such as default/first
}
