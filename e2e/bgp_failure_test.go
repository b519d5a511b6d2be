package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/lab/host"
	"github.com/steelyard-lb/steelyard/e2e/router"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// watchRoutes looks at the router all the time until stopped, and returns how often it looked and the fewest next hops that it saw.
func watchRoutes(t *testing.T, r *router.FRR, p netip.Prefix) (stop func() (looks, fewest int)) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	looks, fewest := 0, 1000
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if hops, err := r.NextHops(ctx, p); err == nil {
				looks++
				fewest = min(fewest, len(hops))
			}
		}
	}()
	return func() (int, int) {
		cancel()
		<-done
		return looks, fewest
	}
}

func established(s v1beta1.BGPSessionStatus) error {
	if s.State != "Established" {
		return fmt.Errorf("want it established")
	}
	return nil
}

var peerOf = map[string]string{"IPv4": "tor-v4", "IPv6": "tor-v6"}

// TestSpeakersRestartGracefully rolls all speakers out anew, and kills one: with graceful restart the router keeps every route.
func TestSpeakersRestartGracefully(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("enableGracefulRestart: true", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("graceful", f, fromPool("routed")))
		addr := address(t, "graceful")
		nextHops(t, r, single(addr), nodes...)
		carriedEverywhere(t, addr)
		stream := traffic.Start(lab.Host(cluster.Remote), port7000(addr), 20*time.Millisecond)
		stop := watchRoutes(t, r, single(addr))

		pod, err := lab.Pod(t.Context(), "speaker", "node-2")
		must(t, err)
		killed := time.Now()
		must(t, host.KillPod(pod, "speaker", syscall.SIGKILL))
		must(t, lab.WaitFor(t.Context(), "the killed speaker to be back", func(ctx context.Context) error {
			return freshPath(ctx, r, single(addr), lab.Address("node-2", f.name == "IPv6"), killed)
		}))
		rollOut(t)
		for _, n := range nodes {
			session(t, n, peerOf[f.name], established)
		}
		looks, fewest := stop()
		if fewest < lab.Nodes || looks < 20 {
			t.Errorf("in %d looks, the router had as few as %d next hops", looks, fewest)
		}
		result := stream.Stop()
		t.Log(result)
		noGap(t, result) // a router that takes the same next hops anew may send what is under way to another of them
	})
}

// freshPath succeeds if the router has a path from a neighbour, and has it from a session that is younger than a moment.
func freshPath(ctx context.Context, r *router.FRR, p netip.Prefix, from netip.Addr, than time.Time) error {
	asked := time.Now()
	paths, err := r.Route(ctx, p)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(paths, func(p router.Path) bool { return p.From == from })
	if i < 0 || paths[i].Stale {
		return fmt.Errorf("it has %+v", paths)
	}
	var neighbours map[string]struct {
		Up int `json:"bgpTimerUpMsec"`
	}
	if err := r.JSON(ctx, "show bgp neighbors "+from.String()+" json", &neighbours); err != nil {
		return err
	}
	if up := time.Duration(neighbours[from.String()].Up) * time.Millisecond; asked.Add(-up).Before(than) {
		return fmt.Errorf("its session with %s is up for %s", from, up)
	}
	return nil
}

// TestBGPProgramDies: it is started again, the router keeps the routes, and the local network does not notice.
func TestBGPProgramDies(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("enableGracefulRestart: true", ""))
	f := families[0]
	create(t, lbService("engine", f, fromPool("routed")))
	create(t, lbService("beside", f))
	addr, beside := address(t, "engine"), address(t, "beside")
	nextHops(t, r, single(addr), nodes...)
	node := owner(t, beside)
	pod, err := lab.Pod(t.Context(), "speaker", node)
	must(t, err)
	before := speakerRunsSince(t, pod)
	carriedEverywhere(t, addr, beside)
	layer2 := traffic.Start(clientHost(), port7000(beside), 20*time.Millisecond)
	stop := watchRoutes(t, r, single(addr))
	for range 3 {
		var killed time.Time
		must(t, lab.WaitFor(t.Context(), "bgpd to run", func(context.Context) error {
			killed = time.Now()
			return host.KillPod(pod, "bgpd", syscall.SIGSEGV)
		}))
		must(t, lab.WaitFor(t.Context(), "the session to be back", func(ctx context.Context) error {
			return freshPath(ctx, r, single(addr), lab.Address(node, false), killed)
		}))
	}
	if looks, fewest := stop(); fewest < lab.Nodes {
		t.Errorf("in %d looks, the router had as few as %d next hops", looks, fewest)
	}
	if result := layer2.Stop(); result.Served < result.Tried {
		t.Errorf("over the local network, %s: %v", result, result.Faults)
	}
	if after := speakerRunsSince(t, pod); after != before {
		t.Errorf("the speaker ran since %s and runs since %s: it was restarted too", before, after)
	}
}

// speakerRunsSince returns when the only container of a speaker's pod was started.
func speakerRunsSince(t *testing.T, pod string) time.Time {
	t.Helper()
	var p corev1.Pod
	must(t, lab.Get(t.Context(), key(fixture.Namespace, pod), &p))
	if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Running == nil {
		t.Fatalf("the speaker does not run: %+v", p.Status.ContainerStatuses)
	}
	return p.Status.ContainerStatuses[0].State.Running.StartedAt.Time
}

var quickBFD = fixture.BFD{Name: "quick", Interval: 100, Multiplier: 3}

// TestBFDSeesADeadNode cuts a node's cable: the router's next hop goes within BFD's time, not within BGP's.
func TestBFDSeesADeadNode(t *testing.T) {
	r := frr(t, quickBFD.RouterConfig()+lab.RouterConfig(quickBFD.Neighbour()))
	apply(t, quickBFD.Manifest())
	apply(t, routedBy("bfdProfile: quick", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("bfd", f, fromPool("routed")))
		addr := address(t, "bfd")
		nextHops(t, r, single(addr), nodes...)
		carriedEverywhere(t, addr)
		session(t, "node-3", peerOf[f.name], func(s v1beta1.BGPSessionStatus) error {
			if s.BFD == nil || s.BFD.State != "Up" {
				return fmt.Errorf("want BFD to be up")
			}
			return established(s)
		})
		watched(t, r, "node-3", f)
		cut := time.Now()
		must(t, lab.Cut(t.Context(), "node-3"))
		t.Cleanup(func() { _ = lab.Mend(context.Background(), "node-3") })
		// On a starved machine, BFD at this speed may lose others as well, for a while.
		must(t, lab.WaitFor(t.Context(), "the next hop to go", func(ctx context.Context) error {
			hops, err := r.NextHops(ctx, single(addr))
			if err == nil && slices.Contains(hops, lab.Address("node-3", f.name == "IPv6")) {
				err = fmt.Errorf("they are %v", hops)
			}
			return err
		}))
		gap := time.Since(cut)
		t.Logf("the router's next hop was gone %d ms after the cable was cut", gap.Milliseconds())
		if gap > 5*time.Second { // the hold time is 90 s
			t.Errorf("the router's next hop was gone only after %s", gap)
		}
		// The node itself has noticed as well.
		must(t, lab.WaitFor(t.Context(), "node-3 to have noticed", func(ctx context.Context) error {
			return metricIs("node-3", fmt.Sprintf(`steelyard_bgp_session_up{peer="%s"}`, peerOf[f.name]), 0)
		}))
		must(t, lab.Mend(t.Context(), "node-3"))
		nextHops(t, r, single(addr), nodes...)
	})
}

func metricIs(node, series string, want float64) error {
	got, err := metric(node, series)
	if err == nil && got != want {
		err = fmt.Errorf("%s of %s is %g, want %g", series, node, got, want)
	}
	return err
}

func TestRouterRestarts(t *testing.T) {
	config := lab.RouterConfig()
	r := frr(t, config)
	apply(t, routedBy("", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("restart", f, fromPool("routed")))
		addr := address(t, "restart")
		nextHops(t, r, single(addr), nodes...)
		must(t, r.Daemon("bgpd").Stop(t.Context(), syscall.SIGKILL))
		must(t, r.Start(t.Context(), "bgpd"))
		must(t, r.Configure(t.Context(), config))
		nextHops(t, r, single(addr), nodes...)
	})
}

// TestGracefulShutdown: before a node withdraws its routes on purpose, the router is told that they are about to go.
func TestGracefulShutdown(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("gracefulShutdown: 3s", ""))
	eachFamily(t, func(t *testing.T, f family) {
		create(t, lbService("shutdown", f, fromPool("routed")))
		addr := address(t, "shutdown")
		nextHops(t, r, single(addr), nodes...)
		label(t, "node-1", corev1.LabelNodeExcludeBalancers, "")
		must(t, lab.WaitFor(t.Context(), "the community", func(ctx context.Context) error {
			paths, err := r.Route(ctx, single(addr))
			if err != nil {
				return err
			}
			for _, p := range paths {
				if p.From == lab.Address("node-1", f.name == "IPv6") && slices.Contains(p.Communities, "graceful-shutdown") {
					return nil
				}
			}
			return fmt.Errorf("it has %+v", paths)
		}))
		must(t, lab.WaitFor(t.Context(), "the path to go", func(ctx context.Context) error {
			paths, err := r.Route(ctx, single(addr))
			if err == nil && len(paths) != lab.Nodes-1 {
				err = fmt.Errorf("it has %+v", paths)
			}
			return err
		}))
		unlabel(t, "node-1", corev1.LabelNodeExcludeBalancers)
		nextHops(t, r, single(addr), nodes...)
	})
}

// TestBadObjectsHarmNothing: each is answered by a condition, and what worked goes on without a flap.
func TestBadObjectsHarmNothing(t *testing.T) {
	r := plainRouter(t)
	apply(t, routedBy("", ""))
	create(t, lbService("unharmed", families[0], fromPool("routed")))
	addr := address(t, "unharmed")
	nextHops(t, r, single(addr), nodes...)
	stop := watchRoutes(t, r, single(addr))
	for _, bad := range []struct{ manifest, kind, name, reason, says string }{
		{"kind: BGPPeer\nmetadata: {name: self}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.11}", "bgppeer", "self", "", "192.0.2.11"},
		{"kind: BGPPeer\nmetadata: {name: twin}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1}", "bgppeer", "twin", "", "tor-v4"},
		{"kind: BGPPeer\nmetadata: {name: nobfd}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.99, bfdProfile: nowhere}", "bgppeer", "nobfd", "", "nowhere"},
		{"kind: BGPPeer\nmetadata: {name: nosecret}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.98, passwordSecret: {name: nowhere}}", "bgppeer", "nosecret", "", "nowhere"},
		{"kind: BGPAdvertisement\nmetadata: {name: nopeer}\nspec: {ipAddressPools: [routed], peers: [nowhere]}", "bgpadvertisement", "nopeer", "", "nowhere"},
		{"kind: BGPAdvertisement\nmetadata: {name: alias}\nspec: {ipAddressPools: [routed], communities: [nowhere]}", "bgpadvertisement", "alias", "", "nowhere"},
		{"kind: BGPAdvertisement\nmetadata: {name: wide}\nspec: {ipAddressPools: [routed], aggregationLength: 16}", "bgpadvertisement", "wide", "", "16"},
		{"kind: BGPAdvertisement\nmetadata: {name: pref}\nspec: {ipAddressPools: [routed], localPref: 300}", "bgpadvertisement", "pref", "", "localPref"},
	} {
		manifest := "apiVersion: steelyard.io/v1beta1\n" + bad.manifest + "\n"
		must(t, lab.Apply(t.Context(), manifest))
		must(t, lab.WaitFor(t.Context(), "the condition of "+bad.name, func(ctx context.Context) error {
			out, err := lab.Kubectl(ctx, "get", bad.kind, bad.name, "-o", `jsonpath={.status.conditions[?(@.type=="Valid")].status} {.status.conditions[?(@.type=="Valid")].message}`)
			if err == nil && (!strings.HasPrefix(out, "False ") || !strings.Contains(out, bad.says)) {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		}))
		must(t, lab.Remove(t.Context(), manifest))
	}
	for _, refused := range []string{
		"kind: BGPPeer\nmetadata: {name: zero}\nspec: {myASN: 0, peerASN: 64512, peerAddress: 192.0.2.1}",
		"kind: BGPPeer\nmetadata: {name: hold}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1, holdTime: 1s}",
		"kind: BGPPeer\nmetadata: {name: keep}\nspec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1, holdTime: 9s, keepaliveTime: 10s}",
		"kind: BGPAdvertisement\nmetadata: {name: comm}\nspec: {communities: [\"99999999:1\"]}",
	} {
		if err := lab.Apply(t.Context(), "apiVersion: steelyard.io/v1beta1\n"+refused+"\n"); err == nil {
			t.Errorf("the API server takes %s", refused)
		}
	}
	if looks, fewest := stop(); fewest < lab.Nodes || looks == 0 {
		t.Errorf("in %d looks, the router had as few as %d next hops", looks, fewest)
	}
	var events corev1.EventList
	must(t, lab.List(t.Context(), &events, client.MatchingFields{"reason": "BGPSessionDown"}))
	for _, e := range events.Items {
		if e.InvolvedObject.Name == "tor-v4" && time.Since(e.LastTimestamp.Time) < 5*time.Second {
			t.Errorf("a session flapped: %s", e.Message)
		}
	}
}

// networkUnavailable sets the condition that network plugins set.
func networkUnavailable(t *testing.T, node string, status corev1.ConditionStatus) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "the condition of "+node, func(ctx context.Context) error {
		var n corev1.Node
		if err := lab.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil {
			return err
		}
		n.Status.Conditions = slices.DeleteFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeNetworkUnavailable })
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: corev1.NodeNetworkUnavailable, Status: status, Reason: "Scenario", Message: "set by a scenario", LastTransitionTime: metav1.Now(),
		})
		return lab.Status().Update(ctx, &n)
	}))
}

// watched waits until BFD watches a node at full speed.
func watched(t *testing.T, r *router.FRR, node string, f family) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), "BFD with "+node, func(ctx context.Context) error {
		return r.BFDUp(ctx, lab.Address(node, f.name == "IPv6"))
	}))
}

// TestRolloutWithBFD: a speaker that is replaced ends BGP before BFD, so that graceful restart has begun when the router sees BFD go.
func TestRolloutWithBFD(t *testing.T) {
	// Slow, because a rollout keeps all CPUs busy, and this is not about how much BFD bears.
	slow := fixture.BFD{Name: "slow", Interval: 900, Multiplier: 5}
	r := frr(t, slow.RouterConfig()+lab.RouterConfig(slow.Neighbour()))
	apply(t, slow.Manifest())
	apply(t, routedBy("enableGracefulRestart: true, bfdProfile: slow", ""))
	f := families[0]
	create(t, lbService("bfdrollout", f, fromPool("routed")))
	addr := address(t, "bfdrollout")
	nextHops(t, r, single(addr), nodes...)
	for _, n := range nodes {
		watched(t, r, n, f)
	}
	stop := watchRoutes(t, r, single(addr))
	rollOut(t)
	nextHops(t, r, single(addr), nodes...)
	if looks, fewest := stop(); fewest < lab.Nodes || looks < 20 {
		t.Errorf("in %d looks, the router had as few as %d next hops", looks, fewest)
	}
}
