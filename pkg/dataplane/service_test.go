package dataplane

import (
	"net/netip"
	"testing"
	"time"
	"unique"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b unique.Handle[string]) bool { return a == b }),
}

// newService makes default/web, a LoadBalancer Service of one port, http, in IPv4; the changes come on top.
func newService(changes ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeLoadBalancer,
			ClusterIP:  "10.96.0.1",
			ClusterIPs: []string{"10.96.0.1"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}},
	}
	for _, change := range changes {
		change(svc)
	}
	return svc
}

func name(s string) func(*corev1.Service) { return func(svc *corev1.Service) { svc.Name = s } }
func created(n int) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.CreationTimestamp = metav1.Unix(int64(n), 0) }
}
func typed(t corev1.ServiceType) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.Type = t }
}
func clusterIPIs(text string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.ClusterIP, svc.Spec.ClusterIPs = text, []string{text} }
}
func balancedAt(texts ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Status.LoadBalancer.Ingress = nil
		for _, text := range texts {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: text})
		}
	}
}
func externalIPs(texts ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.ExternalIPs = texts }
}
func ranges(texts ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = texts }
}
func ports(p ...corev1.ServicePort) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.Ports = p }
}
func internalLocal(svc *corev1.Service) {
	svc.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}
func externalLocal(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.HealthCheckNodePort = 32000
}
func dualStack(svc *corev1.Service) {
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP, "fd00:96::1"}
}
func class(s string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &s }
}

func TestServiceOfWhatIsNotProxied(t *testing.T) {
	for what, change := range map[string]func(*corev1.Service){
		"headless":                      clusterIPIs("None"),
		"no cluster address yet":        clusterIPIs(""),
		"ExternalName with an address":  typed(corev1.ServiceTypeExternalName),
		"of another proxy":              func(s *corev1.Service) { s.Labels = map[string]string{labelProxyName: "other"} },
		"of another proxy, empty value": func(s *corev1.Service) { s.Labels = map[string]string{labelProxyName: ""} },
	} {
		t.Run(what, func(t *testing.T) {
			if s, ok := ServiceOf(newService(change)); ok {
				t.Errorf("got %+v", s)
			}
		})
	}
}

func TestServiceOf(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	http := ServicePort{unique.Make("http"), TCP, 80, 30080}
	plain := Service{ClusterIPs: []netip.Addr{a("10.96.0.1")}, LoadBalancerIPs: []netip.Addr{a("192.0.2.1")}, Ports: []ServicePort{http}}
	want := func(change func(*Service)) Service {
		s := plain
		change(&s)
		return s
	}
	proxy := corev1.LoadBalancerIPModeProxy
	vip := corev1.LoadBalancerIPModeVIP

	for what, c := range map[string]struct {
		change func(*corev1.Service)
		want   Service
	}{
		"plain": {func(*corev1.Service) {}, plain},
		"both families, in the order of ipFamilies": {
			func(s *corev1.Service) {
				s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
				s.Spec.ClusterIPs = []string{"fd00::1", "10.96.0.1"}
			},
			want(func(s *Service) { s.ClusterIPs = []netip.Addr{a("fd00::1"), a("10.96.0.1")} }),
		},
		"older than dual stack": {
			func(s *corev1.Service) { s.Spec.IPFamilies, s.Spec.ClusterIPs = nil, nil }, plain,
		},
		"a family without an address": {
			func(s *corev1.Service) { s.Spec.IPFamilies = append(s.Spec.IPFamilies, corev1.IPv6Protocol) }, plain,
		},
		"an address of the wrong family": {
			func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"fd00::1"} },
			want(func(s *Service) { s.ClusterIPs = nil }),
		},
		"ipMode": {
			func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
					{IP: "192.0.2.1", IPMode: &vip}, {IP: "192.0.2.2", IPMode: &proxy}, {Hostname: "lb.example"}, {IP: "2001:db8::1"},
				}
			},
			want(func(s *Service) { s.LoadBalancerIPs = []netip.Addr{a("192.0.2.1"), a("2001:db8::1")} }),
		},
		"addresses that don't parse, or would take over what every host has": {
			func(s *corev1.Service) {
				balancedAt("192.0.2.256", "192.0.2.1", "127.0.0.1", "0.0.0.0", "::1", "224.0.0.1", "fe80::1", "255.255.255.255", "192.0.2.1")(s)
				externalIPs("", "x", " 010.000.000.001 ", "::ffff:10.0.0.2")(s)
			},
			want(func(s *Service) { s.ExternalIPs = []netip.Addr{a("10.0.0.1"), a("10.0.0.2")} }),
		},
		"source ranges: padded, twice, inside another, both families": {
			ranges(" 203.0.113.7/25", "203.0.113.0/26 ", "x", "2001:db8::/32", "198.51.100.0/24", "198.51.100.0/24", "::ffff:10.0.0.0/104"),
			want(func(s *Service) {
				s.SourceRanges = []netip.Prefix{p("10.0.0.0/8"), p("198.51.100.0/24"), p("203.0.113.0/25"), p("2001:db8::/32")}
			}),
		},
		"the type was LoadBalancer": {
			func(s *corev1.Service) {
				typed(corev1.ServiceTypeNodePort)(s)
				ranges("10.0.0.0/8")(s)
				externalLocal(s)
			},
			want(func(s *Service) { s.LoadBalancerIPs, s.ExternalLocal = nil, true }),
		},
		"the type was NodePort": {
			typed(corev1.ServiceTypeClusterIP),
			want(func(s *Service) { s.LoadBalancerIPs, s.Ports = nil, []ServicePort{{http.Name, TCP, 80, 0}} }),
		},
		"policies": {
			func(s *corev1.Service) { internalLocal(s); externalLocal(s) },
			want(func(s *Service) { s.InternalLocal, s.ExternalLocal, s.HealthCheckPort = true, true, 32000 }),
		},
		"a health check port without the policy": {
			func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 32000 }, plain,
		},
		"affinity": {
			func(s *corev1.Service) {
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(60))}}
			},
			want(func(s *Service) { s.Affinity = time.Minute }),
		},
		"affinity without a timeout": {
			func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
			want(func(s *Service) { s.Affinity = 3 * time.Hour }),
		},
		"ports that are none, or are there already": {
			ports(corev1.ServicePort{Name: "http", Port: 80, NodePort: 30080}, corev1.ServicePort{Name: "zero"},
				corev1.ServicePort{Name: "big", Port: 65536}, corev1.ServicePort{Name: "icmp", Protocol: "ICMP", Port: 1},
				corev1.ServicePort{Name: "http", Port: 81}, corev1.ServicePort{Name: "same", Port: 80},
				corev1.ServicePort{Name: "http", Protocol: "UDP", Port: 80, NodePort: 30080}, corev1.ServicePort{Name: "alt", Port: 8080, NodePort: 30080}),
			want(func(s *Service) {
				s.Ports = []ServicePort{http, {http.Name, UDP, 80, 30080}, {unique.Make("alt"), TCP, 8080, 0}}
			}),
		},
		"class": {class("example.com/lb"), want(func(s *Service) { s.Class = "example.com/lb" })},
	} {
		t.Run(what, func(t *testing.T) {
			got, ok := ServiceOf(newService(c.change))
			if diff := cmp.Diff(c.want, got, exact); !ok || diff != "" {
				t.Errorf("ok %v, -want +got:\n%s", ok, diff)
			}
		})
	}
}
