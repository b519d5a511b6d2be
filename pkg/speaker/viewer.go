package speaker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/dataplane"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

// viewer answers those who ask what this node knows, holds and refuses.
type viewer struct {
	mu        sync.Mutex
	speaker   *Speaker // nil while it starts
	routing   *routing
	dataplane DataplaneOptions
}

// set says whom to ask.
func (v *viewer) set(s *Speaker, r *routing, d DataplaneOptions) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.speaker, v.routing, v.dataplane = s, r, d
}

func (v *viewer) register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+view.SpeakerPath, func(w http.ResponseWriter, _ *http.Request) {
		if v.started(w) {
			reply(w, v.look())
		}
	})
	mux.HandleFunc("GET "+view.ServicePath+"{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		if !v.started(w) {
			return
		}
		name := r.PathValue("namespace") + "/" + r.PathValue("name")
		service, known := v.lookAt(name)
		if !known {
			http.Error(w, fmt.Sprintf("this speaker knows no Service %s of type LoadBalancer and of its class", name), http.StatusNotFound)
			return
		}
		reply(w, service)
	})
}

func (v *viewer) started(w http.ResponseWriter) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.speaker == nil {
		http.Error(w, "the speaker is starting", http.StatusServiceUnavailable)
	}
	return v.speaker != nil
}

func reply(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who asked has gone
}

// look returns what is to be said of the node as a whole.
func (v *viewer) look() view.Speaker {
	s, r := v.speaker, v.routing
	s.mu.Lock()
	defer s.mu.Unlock()
	is := view.Speaker{
		Node: s.config.Node, Members: slices.Sorted(maps.Keys(s.view.live)), Quorum: s.view.quorum, Routes: r.table.Len(),
	}
	for a, h := range s.held {
		switch {
		case h.conflict != nil:
			is.Conflicts = append(is.Conflicts, a)
		case h.answers():
			is.Announces++
		}
	}
	slices.SortFunc(is.Conflicts, netip.Addr.Compare)
	if v.dataplane.Mode != dataplane.Off {
		is.Dataplane = &view.Dataplane{Mode: string(v.dataplane.Mode), Backend: v.dataplane.Backend, Settled: s.config.Dataplane.Settled()}
	}
	return is
}

// lookAt returns what this node makes of a Service, and whether it knows it.
func (v *viewer) lookAt(name string) (view.Service, bool) {
	s := v.speaker
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.services[name]
	if svc == nil {
		return view.Service{}, false
	}
	is := view.Service{Node: s.config.Node, Addresses: []view.Address{}}
	for i, a := range svc.addrs {
		of := view.Address{Address: a, Pool: svc.pools[i], Layer2: s.lookAt(svc, i), BGP: v.routing.lookAt(svc, i)}
		if s.config.Dataplane != nil {
			carried := s.carries(a)
			of.Carried = &carried
		}
		is.Addresses = append(is.Addresses, of)
	}
	return is, true
}

// lookAt returns what becomes of a Service's address on the local network.
func (s *Speaker) lookAt(svc *service, i int) view.Layer2 {
	a := svc.addrs[i]
	var is view.Layer2
	if owner := s.replica.get(a).Owner; s.view.live[owner] {
		is.Owner = owner
	}
	is.Refused = s.refuses(svc, svc.pools[i])
	h := s.held[a]
	switch {
	case h == nil:
		if is.Refused == "" && !s.carries(a) {
			is.Refused = announce.NotCarried
		}
	case h.conflict != nil:
		is.Conflict = fmt.Sprintf("the host with the MAC address %v on %s answers for it", h.conflict.MAC, h.conflict.Interface)
	default:
		is.Announced, is.Interfaces = h.answers(), h.interfaces
	}
	return is
}

// refuses returns why this node is no candidate for a Service's addresses from a pool; "" if it is one.
func (s *Speaker) refuses(svc *service, pool string) announce.Reason {
	ads, refused := announce.Advertisements(svc.spec, pool, s.inventory.config.L2Advertisements)
	node := s.view.node(s.config.Node)
	switch {
	case refused != "":
		return refused
	case len(svc.spec.Serving) == 0:
		return announce.NoServingEndpoint
	case node == nil:
		return announce.NoLiveSpeaker // it has yet to meet the others
	}
	_, refused = announce.Judge(svc.spec, ads, node)
	return refused
}

// lookAt returns what routers are told of a Service's address.
func (r *routing) lookAt(svc *service, i int) view.BGP {
	a := svc.addrs[i]
	if r.parsed == nil {
		return view.BGP{} // it has yet to look for the first time
	}
	contributions, refused := r.contributions(svc, a, svc.pools[i])
	var is view.BGP
	if !slices.Contains(r.routed[svc.Name].addrs, a) {
		switch is.Refused = refused; {
		case refused != "":
		case r.excluding:
			is.Refused = announce.ExcludedByLabel
		case r.leaving:
			is.Refused = announce.Leaving
		default:
			is.Refused = announce.NotCarried
		}
		return is
	}
	for _, c := range contributions {
		is.Prefixes = append(is.Prefixes, c.Prefix)
		is.Peers = append(is.Peers, c.Peers...)
	}
	slices.SortFunc(is.Prefixes, netip.Prefix.Compare)
	slices.Sort(is.Peers)
	is.Prefixes, is.Peers = slices.Compact(is.Prefixes), slices.Compact(is.Peers)
	return is
}
