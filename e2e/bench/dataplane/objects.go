package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Where things are. Of all Services one has a load-balancer address, and endpoints that exist.
const (
	nodeName    = "node"
	nodeAddr    = "203.0.113.1"
	clientAddr  = "203.0.113.10"
	podGateway  = "10.244.0.1"
	podCIDR     = "10.244.0.0/24"
	vip         = "192.0.2.1"
	servicePort = 80
	targetPort  = 8080
)

var servers = []string{"10.244.0.2", "10.244.0.3"}

func offset(base string, n int) string {
	b := netip.MustParseAddr(base).As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b).String()
}

func serviceName(i int) string { return fmt.Sprintf("service-%05d", i) }

// service is the Service of that number; served says that it is the one with the address and the endpoints.
func service(i int, served bool) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: serviceName(i), UID: "1"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: offset("10.96.0.1", i), ClusterIPs: []string{offset("10.96.0.1", i)},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: servicePort, TargetPort: intstr.FromInt32(targetPort)}},
		},
	}
	if served {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		s.Spec.AllocateLoadBalancerNodePorts = new(false)
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: vip}}
	}
	return s
}

// slice is a Service's EndpointSlice. Its second endpoint is another in each generation.
func slice(i, generation int, served bool) *discoveryv1.EndpointSlice {
	addrs := []string{offset("10.128.0.0", 4*i), offset("10.128.0.0", 4*i+1+generation)}
	if served {
		addrs = servers
	}
	name, protocol, port, node, ready := "http", corev1.ProtocolTCP, int32(targetPort), nodeName, true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "bench", Name: serviceName(i) + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: serviceName(i)},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return s
}
