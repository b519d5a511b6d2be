package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

const (
	// speakerTimeout is how long one speaker may take to answer.
	speakerTimeout = 5 * time.Second
	// speakersAtOnce are asked at a time.
	speakersAtOnce = 16
)

// ask asks all speakers of the snapshot, through the API server, for what they have at the path. A speaker that answers 404 has nothing to
// say; of others that don't answer there is a gap.
func ask[T any](ctx context.Context, o *options, s *cluster.Snapshot, path string) (map[string]T, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	api, err := typedcorev1.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	answers := map[string]T{}
	silent := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	free := make(chan struct{}, speakersAtOnce)
	for i := range s.Speakers {
		pod := &s.Speakers[i]
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(ctx, speakerTimeout)
			defer cancel()
			var answer T
			raw, err := api.Pods(pod.Namespace).ProxyGet("http", pod.Name, metricsPort(pod), path, nil).DoRaw(ctx)
			if err == nil {
				err = json.Unmarshal(raw, &answer)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answers[pod.Spec.NodeName] = answer
			case !isNotFound(err):
				silent[pod.Spec.NodeName] = err
			}
		})
	}
	wg.Wait()
	s.Gaps = append(s.Gaps, silence(silent, s.Namespace)...)
	return answers, nil
}

// silence says which speakers did not answer, and why.
func silence(silent map[string]error, namespace string) []cluster.Gap {
	var nodes []string
	for node, err := range silent {
		if apierrors.IsForbidden(err) {
			return []cluster.Gap{{Resource: "speakers", Why: fmt.Sprintf(
				"you may not ask them: ask for the right to get pods/proxy in namespace %s; all else is by what they have written", namespace)}}
		}
		nodes = append(nodes, node)
	}
	if len(nodes) == 0 {
		return nil
	}
	slices.Sort(nodes)
	return []cluster.Gap{{Resource: "speakers", Why: fmt.Sprintf(
		"no answer from %s: %v", strings.Join(nodes, ", "), silent[nodes[0]])}}
}

func isNotFound(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	return ok && status.Status().Code == http.StatusNotFound
}

// metricsPort returns the port that the speaker answers on.
func metricsPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == "metrics" {
				return strconv.Itoa(int(p.ContainerPort))
			}
		}
	}
	return "7472"
}
