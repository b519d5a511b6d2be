package controller

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/config"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

const class = v1beta1.DefaultLoadBalancerClass

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
func told(d assign.Decision) string {
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
