package assign

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/steelyard-lb/steelyard/pkg/ipam"
)

// Taken is a Service with addresses that an older one has too, and keeps.
type Taken struct {
	Service   types.NamespacedName
	Addresses []string
}

// Adopt tells the allocator of the addresses in the statuses of the Services that are ours, those of the older Services first. It returns
// how many Services have some, and which have addresses of others.
func Adopt(services []corev1.Service, class string, allocator *ipam.Allocator) (adopted int, taken []Taken) {
	order := make([]*corev1.Service, 0, len(services))
	for i := range services {
		if svc := &services[i]; Serves(svc, class) && len(Addresses(svc)) > 0 {
			order = append(order, svc)
		}
	}
	slices.SortFunc(order, func(a, b *corev1.Service) int {
		return CompareAge(a.CreationTimestamp, string(a.UID), b.CreationTimestamp, string(b.UID))
	})
	for _, svc := range order {
		name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
		var texts []string
		for _, a := range allocator.Adopt(name, sharing(svc), Addresses(svc)) {
			texts = append(texts, a.String())
		}
		if len(texts) > 0 {
			taken = append(taken, Taken{name, texts})
		}
	}
	return len(order), taken
}

// CompareAge orders objects by age, and those of one second by whatever tells them apart.
func CompareAge(a metav1.Time, aID string, b metav1.Time, bID string) int {
	if c := a.Time.Compare(b.Time); c != 0 {
		return c
	}
	return strings.Compare(aID, bID)
}
