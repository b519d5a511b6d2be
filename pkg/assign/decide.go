// Package assign derives from a Service, and from what the allocator has for it, what the Service's status shall be. It is pure: the
// controller writes what it decides, steelyardctl shows what would be written.
package assign

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// Decision is what becomes of one Service.
type Decision struct {
	// Status is what the Service's status shall be.
	Status corev1.ServiceStatus
	// Reason is empty for a Service that is none of ours; it has no addresses.
	Reason ipam.Reason
	// Event is nil when nothing happened that a person wants to know.
	Event *Event
	// Eased: another Service that waits may have an address of this one now.
	Eased bool
}

// Event is something to tell about a Service.
type Event struct {
	Type    string // corev1.EventTypeNormal or EventTypeWarning
	Reason  ipam.Reason
	Message string
}

// Decide asks the allocator what the Service is to have and derives its status from that. Called again with the status that it
// decided, it decides the same and has no Event.
func Decide(svc *corev1.Service, class string, namespace labels.Set, allocator *ipam.Allocator, now metav1.Time) Decision {
	status := *svc.Status.DeepCopy()
	before := meta.FindStatusCondition(svc.Status.Conditions, v1beta1.ConditionAddressAssigned)
	// The condition says whether the addresses are ours. Those of another load balancer that serves the cluster until we have a pool are
	// not: to take them away would cut off traffic, and it would write them again.
	ours := before != nil && before.Reason != string(ipam.NoPools)
	if !Serves(svc, class) {
		if ours {
			status.LoadBalancer = corev1.LoadBalancerStatus{}
		}
		meta.RemoveStatusCondition(&status.Conditions, v1beta1.ConditionAddressAssigned)
		return Decision{Status: status}
	}
	result := allocator.Assign(Request(svc, namespace))
	if !ours && result.Reason == ipam.NoPools {
		result.Lost = ""
	} else if ingress := ingress(result.Addrs); !equality.Semantic.DeepEqual(status.LoadBalancer.Ingress, ingress) {
		status.LoadBalancer.Ingress = ingress
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type:               v1beta1.ConditionAddressAssigned,
		Status:             conditionStatus(result.Reason),
		Reason:             string(result.Reason),
		Message:            result.Message,
		LastTransitionTime: now,
	})
	return Decision{Status: status, Reason: result.Reason, Event: news(before, result), Eased: result.Eased}
}

// Serves tells whether the Service is ours: of the class, or of none, as the Kubernetes documentation has it for the default
// implementation. Without cluster addresses there is nothing to balance.
func Serves(svc *corev1.Service, class string) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		(svc.Spec.LoadBalancerClass == nil || class != "" && *svc.Spec.LoadBalancerClass == class) &&
		len(families(svc)) > 0
}

// Request returns what the Service asks for and what it has. namespace are the labels of its namespace.
func Request(svc *corev1.Service, namespace labels.Set) ipam.Request {
	r := ipam.Request{
		Service:         types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name},
		Labels:          svc.Labels,
		NamespaceLabels: namespace,
		Families:        families(svc),
		Policy:          ptr.Deref(svc.Spec.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack),
		Addresses:       []ipam.Wish{wish(svc, v1beta1.AnnotationAddresses), {Value: svc.Spec.LoadBalancerIP, Source: "spec.loadBalancerIP"}},
		Pool:            wish(svc, v1beta1.AnnotationPool),
		Current:         Addresses(svc),
		Sharing:         sharing(svc),
	}
	return r
}

// sharing returns with whom the Service may share an address. A selector selects pods of its namespace, so pods are the same only in
// one; nobody knows the pods of a Service without a selector.
func sharing(svc *corev1.Service) ipam.Sharing {
	key, _, _ := v1beta1.Annotation(svc.Annotations, v1beta1.AnnotationShareKey)
	s := ipam.Sharing{Key: key}
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		s.Backend = svc.Namespace + " " + labels.Set(svc.Spec.Selector).String()
		if len(svc.Spec.Selector) == 0 {
			s.Backend = svc.Namespace + "/" + svc.Name
		}
	}
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, ipam.Port{Protocol: p.Protocol, Number: p.Port})
	}
	return s
}

func wish(svc *corev1.Service, annotation string) ipam.Wish {
	value, key, _ := v1beta1.Annotation(svc.Annotations, annotation)
	return ipam.Wish{Value: value, Source: "annotation " + key}
}

// families returns those of the Service's cluster addresses, the primary one first.
func families(svc *corev1.Service) []ipam.Family {
	clusterIPs := svc.Spec.ClusterIPs
	if len(clusterIPs) == 0 {
		clusterIPs = []string{svc.Spec.ClusterIP}
	}
	var families []ipam.Family
	for _, ip := range clusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil { // not "" or "None"
			families = append(families, ipam.FamilyOf(a.Unmap()))
		}
	}
	return families
}

// Addresses returns those in the Service's status.
func Addresses(svc *corev1.Service) []netip.Addr {
	var addrs []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// ingress has ipMode VIP (KEP-1860): packets arrive with the address as their destination, so that nodes and pods may short-cut.
func ingress(addrs []netip.Addr) []corev1.LoadBalancerIngress {
	var out []corev1.LoadBalancerIngress
	for _, a := range addrs {
		out = append(out, corev1.LoadBalancerIngress{IP: a.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	}
	return out
}

func conditionStatus(reason ipam.Reason) metav1.ConditionStatus {
	if reason.Satisfied() {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// news tells of a reason that is new, or of an address that the Service lost. That a new Service got what it asked for goes
// without saying.
func news(before *metav1.Condition, result ipam.Result) *Event {
	same := before != nil && before.Reason == string(result.Reason)
	if result.Lost == "" && (same || before == nil && result.Reason == ipam.Assigned) {
		return nil
	}
	e := &Event{Type: corev1.EventTypeNormal, Reason: result.Reason, Message: result.Message}
	if !result.Reason.Satisfied() {
		e.Type = corev1.EventTypeWarning
	}
	if result.Lost != "" {
		e.Message = fmt.Sprintf("%s; no longer %s", result.Message, result.Lost)
	}
	return e
}
