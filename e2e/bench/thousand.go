package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
)

// thousand creates n Services as fast as the API server takes them and measures how long each waits for its address.
func (b *bench) thousand(ctx context.Context, n int, change ...func(*corev1.Service)) error {
	clientset, err := b.Clientset()
	if err != nil {
		return err
	}
	watch, err := clientset.CoreV1().Services("default").Watch(ctx, metav1.ListOptions{LabelSelector: "burst=yes"})
	if err != nil {
		return err
	}
	defer watch.Stop()
	var mu sync.Mutex
	created := map[string]time.Time{}
	began := time.Now()
	failed := make(chan error, 1)
	var creating time.Duration
	go func() {
		defer close(failed)
		var all sync.WaitGroup
		queue := make(chan int)
		for range 8 {
			all.Go(func() {
				for i := range queue {
					s := service(fmt.Sprintf("burst-%d", i), "thousands")
					s.Labels = map[string]string{"burst": "yes"}
					for _, c := range change {
						c(s)
					}
					err := b.Create(ctx, s)
					mu.Lock()
					created[s.Name] = time.Now()
					mu.Unlock()
					if err != nil {
						select {
						case failed <- err:
						default:
						}
					}
				}
			})
		}
		for i := range n {
			queue <- i
		}
		close(queue)
		all.Wait()
		creating = time.Since(began)
	}()
	assigned := map[string]time.Time{}
	deadline := time.After(15 * time.Minute)
	for len(assigned) < n {
		select {
		case event := <-watch.ResultChan():
			s, ok := event.Object.(*corev1.Service)
			if !ok {
				return fmt.Errorf("the watch of Services ended: %v", event)
			}
			if _, seen := assigned[s.Name]; !seen && len(s.Status.LoadBalancer.Ingress) > 0 {
				assigned[s.Name] = time.Now()
			}
		case <-deadline:
			return fmt.Errorf("%d of %d Services had an address after 15 minutes", len(assigned), n)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	total := time.Since(began)
	if err, failed := <-failed; failed {
		return err
	}
	var waits sample
	for name, at := range assigned {
		waits = append(waits, max(0, at.Sub(created[name])))
	}
	fmt.Printf("%d Services at once: created in %s by 8 clients, all assigned after %s (%.2f times as long); each waited %s after its own creation\n",
		n, ms(creating), ms(total), float64(total)/float64(creating), waits)
	return b.memory(ctx, n)
}

// memory reports the resident memory of each program once it stands still.
func (b *bench) memory(ctx context.Context, services int) error {
	var pods corev1.PodList
	if err := b.List(ctx, &pods, client.InNamespace(fixture.Namespace)); err != nil {
		return err
	}
	for _, component := range []string{"speaker", "controller"} {
		var most int
		for _, p := range pods.Items {
			if p.Labels["app.kubernetes.io/component"] != component {
				continue
			}
			pid, err := host.PodProcess(p.Name, component)
			if err != nil {
				return err
			}
			kib, err := resident(pid)
			if err != nil {
				return err
			}
			most = max(most, kib)
		}
		if most == 0 {
			continue // none runs
		}
		fmt.Printf("memory of a %s with %d Services: %.0f MB at most\n", component, services, float64(most)*1024/1e6)
	}
	return nil
}

func resident(pid int) (kib int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
