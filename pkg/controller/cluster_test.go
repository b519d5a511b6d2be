package controller

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard()) // the libraries complain of the API server that the tests take away
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// testCluster is an API server with controllers, and a user of it.
type testCluster struct {
	testing.TB
	api *apiServer
	client.Client
}

func newCluster(t testing.TB, objects ...client.Object) *testCluster {
	api := startAPIServer(t)
	user, err := client.New(api.config(func() bool { return true }), client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	c := &testCluster{t, api, user}
	for _, object := range objects {
		c.create(object)
	}
	return c
}

// replica is a running controller.
type replica struct {
	stop    func() // on purpose, as by SIGTERM
	kill    func() // as by SIGKILL: nothing that it does reaches the API server any more
	metrics *prometheus.Registry
}

func (c *testCluster) start(leaderElect bool) *replica {
	return c.startLogging(leaderElect, slog.New(slog.NewTextHandler(c.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
}

func (c *testCluster) startLogging(leaderElect bool, log *slog.Logger) *replica {
	alive := &atomic.Bool{}
	alive.Store(true)
	o := Options{Namespace: "steelyard", MemberlistSecret: "steelyard-memberlist", LoadBalancerClass: class, LeaderElect: leaderElect, Log: log}
	options := managerOptions(o, logr.FromSlogHandler(log.Handler()))
	options.HealthProbeBindAddress, options.Metrics = "0", metricsserver.Options{BindAddress: "0"}
	options.Controller.SkipNameValidation = ptr.To(true)
	mgr, err := manager.New(c.api.config(alive.Load), options)
	if err != nil {
		c.Fatal(err)
	}
	r := &replica{metrics: prometheus.NewRegistry()}
	if err := setUp(mgr, o, r.metrics); err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		mgr.Start(ctx)
	}()
	r.stop = func() {
		cancel()
		<-done
	}
	r.kill = func() {
		alive.Store(false)
		r.stop()
	}
	c.Cleanup(r.stop)
	return r
}

func (c *testCluster) create(object client.Object) {
	c.Helper()
	if err := c.Create(context.Background(), object); err != nil {
		c.Fatal(err)
	}
}

func (c *testCluster) delete(object client.Object) {
	c.Helper()
	if err := c.Delete(context.Background(), object); err != nil {
		c.Fatal(err)
	}
}

// change changes the spec or the metadata of a Service.
func (c *testCluster) change(name string, change func(*corev1.Service)) {
	c.Helper()
	svc := c.service(name)
	base := svc.DeepCopy()
	change(svc)
	if err := c.Patch(context.Background(), svc, client.MergeFrom(base)); err != nil {
		c.Fatal(err)
	}
}

func (c *testCluster) service(name string) *corev1.Service {
	c.Helper()
	svc := &corev1.Service{}
	if err := c.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, svc); err != nil {
		c.Fatal(err)
	}
	return svc
}

// has waits until the Service's status comes down to the words: "192.0.2.0 True Assigned".
func (c *testCluster) has(name, want string) {
	c.Helper()
	c.eventually(fmt.Sprintf("%s: %q", name, want), func() string {
		return told(assign.Decision{Status: c.service(name).Status})
	}, want)
}

func (c *testCluster) eventually(what string, get func() string, want string) {
	c.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = get(); got == want {
			return
		}
	}
	c.Fatalf("waited in vain for %s; it is %q", what, got)
}

// events returns the reasons of the Events about a Service, sorted.
func (c *testCluster) events(name string) string {
	var list eventsv1.EventList
	if err := c.List(context.Background(), &list); err != nil {
		c.Fatal(err)
	}
	var reasons []string
	for _, e := range list.Items {
		if e.Regarding.Name == name {
			reasons = append(reasons, e.Reason)
		}
	}
	slices.Sort(reasons)
	return strings.Join(reasons, " ")
}

func (c *testCluster) poolStatus(name string) string {
	pool := &v1beta1.IPAddressPool{}
	if err := c.Get(context.Background(), client.ObjectKey{Name: name}, pool); err != nil {
		c.Fatal(err)
	}
	valid := ""
	if condition := meta.FindStatusCondition(pool.Status.Conditions, "Valid"); condition != nil {
		valid = string(condition.Status)
	}
	return fmt.Sprint(pool.Status.AssignedIPv4, pool.Status.AvailableIPv4, pool.Status.AssignedIPv6, pool.Status.AvailableIPv6, " ", valid)
}

// reservation waits until what is kept for a Service comes down to the words: "192.0.2.0/32 Valid", or "none".
func (c *testCluster) reservation(service, want string) {
	c.Helper()
	c.eventually("kept for "+service+": "+want, func() string {
		var r v1beta1.AddressReservation
		err := c.Get(context.Background(), client.ObjectKey{Name: "kept.default." + service}, &r)
		if apierrors.IsNotFound(err) {
			return "none"
		}
		words := r.Spec.Addresses
		if meta.IsStatusConditionTrue(r.Status.Conditions, "Valid") {
			words = append(words, "Valid")
		}
		return strings.Join(words, " ")
	}, want)
}

func pool(name string, addresses ...string) *v1beta1.IPAddressPool {
	p := newPool(name, addresses...)
	return &p
}
