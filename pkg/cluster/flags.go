package cluster

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// Class returns the spec.loadBalancerClass that is served beside Services without a class, as the pods' command lines have it.
func (s *Snapshot) Class() string {
	for _, pods := range [][]corev1.Pod{s.Controllers, s.Speakers} {
		if value, ok := flag(pods, "load-balancer-class"); ok {
			return value
		}
	}
	return v1beta1.DefaultLoadBalancerClass
}

// IgnoresExclude tells whether nodes with the label node.kubernetes.io/exclude-from-external-load-balancers announce all the same.
func (s *Snapshot) IgnoresExclude() bool {
	value, _ := flag(s.Speakers, "ignore-exclude-lb")
	return value == "true"
}

// Dataplane returns the mode of the speakers' dataplane, or "" when no speaker is known.
func (s *Snapshot) Dataplane() string {
	value, _ := flag(s.Speakers, "dataplane")
	return value
}

// Listens tells whether routers can connect to the speakers.
func (s *Snapshot) Listens() bool {
	value, ok := flag(s.Speakers, "bgp-listen-port")
	return ok && value != "0"
}

// flag returns the value of a flag in the command line of the first pod that has it, the last one there, as the programs do; one without a value
// is "true". Pods have the same ones but for a rollout.
func flag(pods []corev1.Pod, name string) (value string, ok bool) {
	for i := range pods {
		for _, c := range pods[i].Spec.Containers {
			for _, arg := range c.Args {
				key, text, valued := strings.Cut(strings.TrimLeft(arg, "-"), "=")
				if key != name {
					continue
				}
				if value, ok = text, true; !valued {
					value = "true"
				}
			}
		}
		if ok {
			return value, true
		}
	}
	return "", false
}
