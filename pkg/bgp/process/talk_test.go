package process

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// pipes are the child's two ends and the speaker's.
type pipes struct {
	childIn, in   *io.PipeReader
	childOut, out *io.PipeWriter
}

func newPipes() (p pipes) {
	p.childIn, p.out = io.Pipe()
	p.in, p.childOut = io.Pipe()
	return p
}

func (p pipes) close() {
	p.in.Close()
	p.out.Close()
	p.childIn.Close()
	p.childOut.Close()
}

func TestHungChildIsGivenUp(t *testing.T) {
	tests := map[string]struct {
		child func(p pipes)
	}{
		"reads nothing": {func(pipes) {}},
		"reads, says nothing": {func(p pipes) {
			_, _ = io.Copy(io.Discard, p.childIn)
		}},
		"applies nothing, but says how sessions stand": {func(p pipes) {
			go func() { _, _ = io.Copy(io.Discard, p.childIn) }()
			for e := gob.NewEncoder(p.childOut); e.Encode(report{HasSessions: true}) == nil; {
				time.Sleep(reportEvery)
			}
		}},
		"applies the first change, and then nothing": {func(p pipes) {
			go func() { _, _ = io.Copy(io.Discard, p.childIn) }()
			_ = gob.NewEncoder(p.childOut).Encode(report{Applied: 1})
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				var child sync.WaitGroup
				child.Go(func() { test.child(p) })
				defer child.Wait()
				e := newEngine(Config{})
				e.Sync(bgp.Desired{Peers: peers("a")})
				begin := time.Now()
				_, err := e.talk(t.Context(), p.in, p.out, false, p.close)
				if took := time.Since(begin); err == nil || took < silence || took > silence+reportEvery {
					t.Errorf("given up after %v with %v, want %v", took, err, silence)
				}
			})
		})
	}
}

func TestHungChildDoesNotDelayTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		e := newEngine(Config{})
		e.Sync(bgp.Desired{Peers: peers("a")})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*time.Second, cancel)
		begin := time.Now()
		_, err := e.talk(ctx, p.in, p.out, false, p.close)
		if took := time.Since(begin); err == nil || took != 30*time.Second+stopPatience {
			t.Errorf("ended after %v with %v", took, err)
		}
	})
}

// quiet is an engine for tests of the child's side.
type quiet struct {
	changed chan struct{}
	apply   func(bgp.Change) error

	mu       sync.Mutex
	sessions []bgp.Session
	did      []string
}

func (q *quiet) Apply(c bgp.Change) error { return q.apply(c) }
func (q *quiet) Reset(peer, _ string)     { q.do("reset " + peer) }
func (q *quiet) Stop()                    { q.do("stop") }
func (q *quiet) Changed() <-chan struct{} { return q.changed }

func (q *quiet) do(what string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.did = append(q.did, what)
}

func (q *quiet) Sessions() []bgp.Session {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sessions
}

// TestStandingStill: a child and its speaker that are both idle exchange only signs of life, for as long as it may be.
func TestStandingStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		q := &quiet{changed: make(chan struct{}, 1), apply: func(bgp.Change) error { return nil }, sessions: []bgp.Session{{Peer: "a", State: bgp.Active}}}
		served := make(chan error, 1)
		go func() { served <- serve(p.childIn, p.childOut, q) }()
		e := newEngine(Config{Log: slog.New(slog.DiscardHandler)})
		d := bgp.Desired{RouterID: routerID, Peers: peers("a")}
		e.Sync(d)
		ctx, cancel := context.WithCancel(t.Context())
		talked := make(chan error, 1)
		go func() {
			_, err := e.talk(ctx, p.in, p.out, false, func() { t.Error("an idle child is taken for hung") })
			p.out.Close()
			talked <- err
		}()
		synctest.Wait()
		<-e.Changed()
		for range 100 {
			time.Sleep(reportEvery)
			e.Sync(d)
			synctest.Wait()
		}
		select {
		case <-e.Changed():
			t.Error("a change is said where there is none")
		default:
		}

		q.mu.Lock()
		q.sessions = []bgp.Session{{Peer: "a", State: bgp.Established, Announced: 7}}
		q.mu.Unlock()
		begin := time.Now()
		notify(q.changed)
		<-e.Changed()
		if took := time.Since(begin); took > reportPause || e.Sessions()[0].Announced != 7 {
			t.Errorf("after %v: %+v", took, e.Sessions())
		}

		cancel()
		if err := <-talked; err != nil {
			t.Errorf("talk: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if strings.Join(q.did, ",") != "stop" {
			t.Errorf("the engine did %v", q.did)
		}
		p.close()
	})
}

func TestServeEndsThoughEngineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		hang := make(chan struct{})
		q := &quiet{apply: func(bgp.Change) error { <-hang; return nil }}
		go func() {
			encoder := gob.NewEncoder(p.out)
			_ = encoder.Encode(order{Number: 1})
			_ = encoder.Encode(order{Peer: "a"})
			p.out.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, p.in) }()
		begin := time.Now()
		err := serve(p.childIn, p.childOut, q)
		if took := time.Since(begin); err == nil || took != stopPatience {
			t.Errorf("ended after %v with %v", took, err)
		}
		if strings.Join(q.did, ",") != "reset a" {
			t.Errorf("the engine did %v", q.did)
		}
		p.close()
		close(hang)
	})
}

func TestServeEndsIfNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		p.in.Close()
		q := &quiet{apply: func(bgp.Change) error { return nil }}
		if err := serve(p.childIn, p.childOut, q); err == nil || strings.Join(q.did, ",") != "stop" {
			t.Errorf("ended with %v, the engine did %v", err, q.did)
		}
		p.close()
	})
}

func TestTrimmer(t *testing.T) {
	n := 0
	trim := trimmer{free: func() { n++ }}
	start := time.Now()
	tick := 0
	steps := []struct {
		what  string
		used  bool
		ticks int
		want  int
	}{
		{"nothing ever happened", false, 100, 0},
		{"busy", true, 1, 0},
		{"quiet", false, 1, 1},
		{"quiet for long", false, 100, 1},
		{"a change", true, 2, 2},
		{"another soon after", true, 5, 2},
		{"a minute later", false, 1, 3},
	}
	for _, s := range steps {
		if s.used {
			trim.used()
		}
		for range s.ticks {
			tick++
			trim.tick(start.Add(time.Duration(tick) * reportEvery))
		}
		if n != s.want {
			t.Errorf("%s: memory was given back %d times, want %d", s.what, n, s.want)
		}
	}
}

func TestPack(t *testing.T) {
	attributes := []*bgp.Attributes{nil, {}, {LocalPref: 1, Communities: []bgp.Community{{A: 1, B: 2}, {Large: true, A: 1, B: 2, C: 3}}}, {MED: 0, HasMED: true, Prepend: 3, Bandwidth: 1 << 40}}
	addrs := []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1%eth0")}
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.SampledFrom(addrs)
		c := bgp.Change{RouterID: addr.Draw(t, "router ID"), ListenPort: rapid.Uint16().Draw(t, "port"), Restarting: rapid.Bool().Draw(t, "restarting")}
		for i := range rapid.IntRange(0, 3).Draw(t, "peers") {
			c.Peers = append(c.Peers, bgp.Peer{Name: fmt.Sprint("peer", i), Address: addr.Draw(t, "address"), Source: addr.Draw(t, "source"), LocalASN: rapid.Uint32().Draw(t, "ASN"), Password: rapid.String().Draw(t, "password"), HoldTime: time.Duration(rapid.Int64().Draw(t, "hold"))})
			c.GonePeers = append(c.GonePeers, fmt.Sprint("gone", i))
		}
		for i := range rapid.IntRange(0, 5).Draw(t, "routes") {
			r := bgp.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 32)}
			for range rapid.IntRange(0, 2).Draw(t, "paths") {
				r.Paths = append(r.Paths, bgp.Path{Peers: rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 1, 2).Draw(t, "names"), Attributes: rapid.SampledFrom(attributes).Draw(t, "attributes")})
			}
			c.Routes = append(c.Routes, r)
			c.GoneRoutes = append(c.GoneRoutes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i)}), 40))
		}
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(order{Number: 1, Change: pack(c)}); err != nil {
			t.Fatal(err)
		}
		var o order
		if err := gob.NewDecoder(&b).Decode(&o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, o.Change.unpack(), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Fatalf("the child is told something else (-want +got):\n%s", diff)
		}
	})
}

func TestPackShares(t *testing.T) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(pack(bgp.Change{Routes: routes(10_000, "a", "b")})); err != nil {
		t.Fatal(err)
	}
	if perRoute := b.Len() / 10_000; perRoute > 20 {
		t.Errorf("a route takes %d bytes", perRoute)
	}
	var w change
	if err := gob.NewDecoder(&b).Decode(&w); err != nil {
		t.Fatal(err)
	}
	all := w.unpack().Routes
	first, last := all[0].Paths[0], all[9_999].Paths[0]
	if first.Attributes != last.Attributes || &first.Peers[0] != &last.Peers[0] {
		t.Error("what the speaker shares is not shared by the child")
	}
}

func TestSinceOfASessionThatNeverWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(Config{})
		begin := time.Now()
		e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a")})
		time.Sleep(time.Hour)
		e.Sync(bgp.Desired{RouterID: routerID, Peers: peers("a", "b")})
		for i, want := range []time.Time{begin, begin.Add(time.Hour)} {
			if s := e.Sessions()[i]; !s.Since.Equal(want) {
				t.Errorf("session with %s since %v, want %v", s.Peer, s.Since, want)
			}
		}
	})
}
