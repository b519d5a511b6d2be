package dataplane

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unique"
)

// Config is what a person decides about the dataplane of a node.
type Config struct {
	Mode  Mode
	Node  string // the node's name
	Class string // in LoadBalancer mode, the loadBalancerClass that is served beside Services without one
	// PodCIDRs and PodInterfaces tell which traffic comes from pods; with neither, the Node's podCIDRs do.
	PodCIDRs      []netip.Prefix
	PodInterfaces string // a prefix of the names of interfaces
	MasqueradeAll bool
	// NodePortAddresses are the ranges of local addresses that node ports are open on; a family without a range is open on all.
	NodePortAddresses  []netip.Prefix
	PrimaryOnly        bool // node ports are open on the node's primary addresses only, NodePortAddresses say nothing
	LocalhostNodePorts bool
}

var families = []Family{IPv4, IPv6}

// Tracker follows Services, EndpointSlices and the node, and keeps a Model up to date. The cost of an update follows the number of Services
// that something happened to. The order of events makes no difference. It is not safe for concurrent use.
type Tracker struct {
	cfg    Config
	name   unique.Handle[string]
	zone   unique.Handle[string]
	node   Node
	local  []netip.Addr // sorted
	down   map[unique.Handle[string]]bool
	served func(netip.Addr) bool

	services  map[string]*service
	slices    map[string]*service // by the slice's namespace/name
	holders   map[claim]*service
	contested map[claim][]*service // all that claim it, the oldest first, where there are several

	dirty    map[*service][]time.Time // with what triggered the changes of its slices
	triggers []time.Time
}

// service is a Service and its slices, of which either may come first.
type service struct {
	key    string
	spec   *Service // nil: unknown
	slices []namedSlice
	// claims and created are those that the Tracker's holders know.
	claims  []claim
	created time.Time
}

// namedSlice is a Slice with its namespace/name, by which a service sorts them.
type namedSlice struct {
	key string
	Slice
}

// NewTracker returns a Tracker that knows nothing yet.
func NewTracker(cfg Config) *Tracker {
	return &Tracker{
		cfg:       cfg,
		name:      unique.Make(cfg.Node),
		zone:      nowhere,
		served:    func(netip.Addr) bool { return false },
		services:  map[string]*service{},
		slices:    map[string]*service{},
		holders:   map[claim]*service{},
		contested: map[claim][]*service{},
		dirty:     map[*service][]time.Time{},
	}
}

// SetService adds or replaces a Service by its namespace/name.
func (t *Tracker) SetService(key string, spec Service) {
	s := t.service(key)
	if s.spec == nil || !reflect.DeepEqual(*s.spec, spec) {
		s.spec = &spec
		t.touch(s)
	}
}

// DeleteService removes a Service.
func (t *Tracker) DeleteService(key string) {
	if s := t.services[key]; s != nil && s.spec != nil {
		s.spec = nil
		t.touch(s)
	}
}

// SetSlice adds or replaces an EndpointSlice by its namespace/name.
func (t *Tracker) SetSlice(key string, slice Slice) {
	if old := t.slices[key]; old != nil && old.key != slice.Service {
		t.DeleteSlice(key)
	}
	s := t.service(slice.Service)
	i, found := s.find(key)
	switch {
	case !found:
		s.slices = slices.Insert(s.slices, i, namedSlice{key, slice})
	case s.slices[i].sameContent(&slice):
		return
	default:
		s.slices[i].Slice = slice
	}
	t.slices[key] = s
	t.touch(s)
	if !slice.Trigger.IsZero() {
		t.dirty[s] = append(t.dirty[s], slice.Trigger)
	}
}

// DeleteSlice removes an EndpointSlice.
func (t *Tracker) DeleteSlice(key string) {
	s := t.slices[key]
	if s == nil {
		return
	}
	i, _ := s.find(key)
	s.slices = slices.Delete(s.slices, i, i+1)
	delete(t.slices, key)
	t.touch(s)
}

// SetNode tells about this node. The zone matters to Services with hints only, the addresses to those with source ranges.
func (t *Tracker) SetNode(node Node) {
	moved, readdressed := t.node.Zone != node.Zone, !slices.Equal(t.node.Addrs, node.Addrs)
	t.node, t.zone = node, unique.Make(node.Zone)
	for _, s := range t.services {
		if moved && s.zoned() || readdressed && s.spec != nil && len(s.spec.SourceRanges) > 0 {
			t.touch(s)
		}
	}
}

// SetLocalAddrs tells the addresses of the node's interfaces.
func (t *Tracker) SetLocalAddrs(addrs []netip.Addr) {
	t.local = make([]netip.Addr, 0, len(addrs))
	for _, addr := range addrs {
		t.local = append(t.local, addr.Unmap().WithZone(""))
	}
	slices.SortFunc(t.local, netip.Addr.Compare)
	t.local = slices.Compact(t.local)
}

// SetDown tells which nodes have lost power. Kubernetes goes on calling their pods ready for most of a minute; they get no new connections
// unless there is nobody else.
func (t *Tracker) SetDown(nodes []string) {
	down := map[unique.Handle[string]]bool{}
	for _, n := range nodes {
		down[unique.Make(n)] = true
	}
	before := t.down
	t.down = down
	for _, s := range t.services {
		if slices.ContainsFunc(s.slices, func(n namedSlice) bool {
			return slices.ContainsFunc(n.Endpoints, func(e SliceEndpoint) bool { return before[e.Node] != down[e.Node] })
		}) {
			t.touch(s)
		}
	}
}

// SetServed tells which load-balancer addresses are carried in LoadBalancer mode; none, until it is called. It is to be called again when
// the function would answer differently.
func (t *Tracker) SetServed(served func(netip.Addr) bool) {
	t.served = served
	for _, s := range t.services {
		if s.spec != nil && len(s.spec.LoadBalancerIPs) > 0 {
			t.touch(s)
		}
	}
}

// Update brings m up to date, which is the Model that the last call left, or an empty one at the first. It returns the Services whose ports
// or health check changed, sorted, and whether what holds for all Services changed.
func (t *Tracker) Update(m *Model) (changed []string, host bool) {
	if m.Ports == nil {
		m.Ports, m.HealthChecks = map[string][]*Port{}, map[string]HealthCheck{}
	}
	if h := t.host(); !reflect.DeepEqual(h, m.Host) {
		m.Host, host = h, true
	}
	for _, s := range slices.Collect(maps.Keys(t.dirty)) {
		t.reclaim(s)
	}
	for s, triggers := range t.dirty {
		if t.update(m, s) {
			changed = append(changed, s.key)
			t.triggers = append(t.triggers, triggers...)
		}
		if s.spec == nil && len(s.slices) == 0 {
			delete(t.services, s.key)
		}
	}
	t.dirty = map[*service][]time.Time{}
	slices.Sort(changed)
	return changed, host
}

// Triggers returns when the changes of EndpointSlices that changed the Model since the last call were triggered, in no order. Some may be
// from before the start of this process.
func (t *Tracker) Triggers() []time.Time {
	out := t.triggers
	t.triggers = nil
	return out
}

// update brings one Service of the Model up to date.
func (t *Tracker) update(m *Model, s *service) bool {
	var ports []*Port
	var check HealthCheck
	if s.spec != nil {
		ports, check = t.ports(s)
	}
	old := m.Ports[s.key]
	for i, p := range ports {
		j := slices.IndexFunc(old, func(q *Port) bool { return q.Family == p.Family && q.Name == p.Name })
		if j >= 0 && reflect.DeepEqual(p, old[j]) {
			ports[i] = old[j]
		}
	}
	if slices.Equal(old, ports) && m.HealthChecks[s.key] == check {
		return false
	}
	set(m.Ports, s.key, ports, len(ports) > 0)
	set(m.HealthChecks, s.key, check, check.Port != 0)
	return true
}

// set puts the value in the map if it is there, else takes it out.
func set[V any](m map[string]V, key string, value V, there bool) {
	if there {
		m[key] = value
	} else {
		delete(m, key)
	}
}

// ports decides what the ports of a Service do on this node.
func (t *Tracker) ports(s *service) (ports []*Port, check HealthCheck) {
	if t.cfg.Mode == Full {
		check.Port = s.spec.HealthCheckPort
	}
	for _, family := range families {
		if _, ok := s.spec.clusterIP(family); !ok {
			continue
		}
		ready := map[netip.Addr]bool{}
		for _, port := range s.spec.Ports {
			all := t.powered(s.places(family, port))
			if check.Port != 0 {
				for _, p := range all {
					if p.Ready && t.isLocal(p) {
						ready[p.addr.Addr()] = true
					}
				}
			}
			if p := t.port(s, family, port, all); p != nil {
				ports = append(ports, p)
			}
		}
		check.Local = max(check.Local, len(ready))
	}
	return ports, check
}

// port decides what a port does in one family; nil if it has no frontend.
func (t *Tracker) port(s *service, family Family, port ServicePort, all []place) *Port {
	frontends := slices.DeleteFunc(t.claimable(s.spec, family, port), func(f Frontend) bool {
		return t.holders[claim{f.Addr, f.Port, port.Protocol, family}] != s
	})
	if len(frontends) == 0 {
		return nil
	}
	has := func(is func(Kind) bool) bool {
		return slices.ContainsFunc(frontends, func(f Frontend) bool { return is(f.Kind) })
	}
	p := &Port{
		Name:          PortName{s.key, port.Name.Value(), port.Protocol},
		Family:        family,
		Frontends:     frontends,
		Cluster:       t.usable(all, t.topology(all)),
		InternalLocal: s.spec.InternalLocal && has(func(k Kind) bool { return k == ClusterIP }),
		ExternalLocal: s.spec.ExternalLocal && has(func(k Kind) bool { return k != ClusterIP }),
		Affinity:      s.spec.Affinity,
	}
	if p.InternalLocal || p.ExternalLocal {
		p.Local = t.usable(all, t.isLocal)
	}
	if port.Protocol == UDP {
		p.Serving = serving(all)
	}
	if has(func(k Kind) bool { return k == LoadBalancerIP }) {
		p.SourceRanges = rangesOf(s.spec.SourceRanges, family)
		p.OwnSource = slices.ContainsFunc(p.SourceRanges, func(r netip.Prefix) bool { return slices.ContainsFunc(t.node.Addrs, r.Contains) })
	}
	return p
}

// service returns the entry of a Service, a new one if need be.
func (t *Tracker) service(key string) *service {
	s := t.services[key]
	if s == nil {
		s = &service{key: key}
		t.services[key] = s
	}
	return s
}

func (s *service) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.slices, key, func(n namedSlice, key string) int { return strings.Compare(n.key, key) })
}

// touch has the Service looked at in the next Update.
func (t *Tracker) touch(s *service) {
	if _, ok := t.dirty[s]; !ok {
		t.dirty[s] = nil
	}
}
