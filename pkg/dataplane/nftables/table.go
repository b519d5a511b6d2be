package nftables

import (
	"maps"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// table is what is in the kernel for one family. It keeps the Service's ports rather than their elements, which are rendered again
// when they have to go: that is a tenth of the memory.
type table struct {
	family
	mode    dataplane.Mode
	host    dataplane.Host
	version string
	nft     *nft.Table
	setOf   map[string]*nft.Set   // by name
	ports   map[string][]numbered // by Service
	classes map[class]struct{}    // that were used since the table was read back
	chains  map[string]bool
	users   map[slot]int // of shared slots
	lastID  uint32
}

func newTable(f family, mode dataplane.Mode, host dataplane.Host) *table {
	t := &table{family: f, mode: mode, host: clone(host), ports: map[string][]numbered{}, classes: map[class]struct{}{},
		chains: map[string]bool{}, users: map[slot]int{},
		setOf: map[string]*nft.Set{}}
	t.nft = &nft.Table{Name: tableName, Family: nft.TableFamilyIPv4}
	if f.Family == dataplane.IPv6 {
		t.nft.Family = nft.TableFamilyIPv6
	}
	for _, s := range f.sets(t.nft) {
		t.setOf[s.Name] = s
	}
	t.version = f.skeleton(mode, host)[0].name
	return t
}

// clone keeps what the host was, for the model's may be changed in place. No list stays no list: that has a meaning of its own.
func clone(h dataplane.Host) dataplane.Host {
	h.PodCIDRs, h.NodePortAddrs = slices.Clone(h.PodCIDRs), slices.Clone(h.NodePortAddrs)
	return h
}

// change is what a transaction does to a table.
type change struct {
	chains []chain                     // new ones; none refers to a later one
	del    map[string][]nft.SetElement // by set
	add    map[string][]nft.SetElement
}

func newChange() *change {
	return &change{del: map[string][]nft.SetElement{}, add: map[string][]nft.SetElement{}}
}

// use adds the chains of a class to the change unless the table has them.
func (t *table) use(ch *change) func(class) {
	return func(c class) {
		if _, ok := t.classes[c]; ok {
			return
		}
		t.classes[c] = struct{}{}
		for _, own := range t.chainsOf(c, t.mode, t.host) {
			if !t.chains[own.name] {
				t.chains[own.name] = true
				ch.chains = append(ch.chains, own)
			}
		}
	}
}

// numberPorts gives the ports of a Service their ids. A port keeps its id, and with it the clients that stick to its endpoints, while its
// affinity stays the same.
func (t *table) numberPorts(old []numbered, ports []*dataplane.Port) []numbered {
	var out []numbered
	for _, p := range ports {
		if p.Family != t.Family {
			continue
		}
		i := slices.IndexFunc(old, func(o numbered) bool { return o.Name == p.Name && o.Affinity == p.Affinity })
		if i >= 0 {
			out = append(out, numbered{p, old[i].id})
			continue
		}
		t.lastID++
		out = append(out, numbered{p, t.lastID})
	}
	return out
}

// update brings the table from what it was to the model, for the Services named.
func (t *table) update(m *dataplane.Model, services []string) *change {
	ch := newChange()
	use := t.use(ch)
	before, after, had := t.hostElements(t.host), t.hostElements(m.Host), map[slot]bool{}
	t.host = clone(m.Host)
	for _, name := range services {
		old := t.ports[name]
		now := t.numberPorts(old, m.Ports[name])
		t.render(old, before, had, use, -1)
		t.render(now, after, had, use, +1)
		if len(now) == 0 {
			delete(t.ports, name)
		} else {
			t.ports[name] = now
		}
	}
	for s, was := range had {
		if was {
			before[s] = content{}
		}
		if t.users[s] > 0 {
			after[s] = content{}
		} else {
			delete(t.users, s)
		}
	}
	ch.difference(before, after)
	return ch
}

// render adds a Service's elements to out. For the shared ones it counts the users instead, and notes whether there was one before.
func (t *table) render(ports []numbered, out elements, had map[slot]bool, use func(class), count int) {
	own := elements{}
	for _, p := range ports {
		t.add(own, p, use)
	}
	for s, c := range own {
		if !s.shared() {
			out[s] = c
			continue
		}
		if _, noted := had[s]; !noted {
			had[s] = t.users[s] > 0
		}
		t.users[s] += count
	}
}

// adopt brings the table from what was read back to the model.
func (t *table) adopt(m *dataplane.Model, k *readBack) *change {
	t.lastID = k.lastID
	for _, name := range k.chains {
		t.chains[name] = true
	}
	ch := newChange()
	use := t.use(ch)
	taken := map[uint32]bool{}
	after, had := t.hostElements(m.Host), map[slot]bool{}
	for _, name := range slices.Sorted(maps.Keys(m.Ports)) {
		var old []numbered
		for _, p := range m.Ports[name] {
			if id, ok := t.idOf(p, k.elements); ok && !taken[id] {
				taken[id] = true
				old = append(old, numbered{p, id})
			}
		}
		if now := t.numberPorts(old, m.Ports[name]); len(now) > 0 {
			t.ports[name] = now
			t.render(now, after, had, use, +1)
		}
	}
	for s := range had {
		after[s] = content{}
	}
	ch.difference(k.elements, after)
	return ch
}

// idOf finds the id that the kernel has for a port.
func (t *table) idOf(p *dataplane.Port, kernel elements) (uint32, bool) {
	for _, fe := range p.Frontends {
		key, s, _ := t.frontend(fe, p.Name.Protocol)
		if c, ok := kernel[slot{set: s.ids, key: key}]; ok {
			return idIn(c.value), true
		}
	}
	return 0, false
}

func idIn(value string) uint32 { return binaryutil.NativeEndian.Uint32([]byte(value)[4:]) }

func (ch *change) difference(before, after elements) {
	for s, c := range before {
		if now, ok := after[s]; !ok || now != c {
			ch.del[s.set] = append(ch.del[s.set], element(s, content{}))
		}
	}
	for s, c := range after {
		if was, ok := before[s]; !ok || was != c {
			ch.add[s.set] = append(ch.add[s.set], element(s, c))
		}
	}
}

func element(s slot, c content) nft.SetElement {
	e := nft.SetElement{Key: []byte(s.key), Comment: c.comment}
	if s.end != "" {
		e.KeyEnd = []byte(s.end)
	}
	if c.value != "" {
		e.Val = []byte(c.value)
	}
	if c.chain != "" {
		e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.chain}
	}
	return e
}

// create queues the table without elements, in the place of one that may be there.
func (t *table) create(conn *nft.Conn) {
	conn.AddTable(t.nft) // because it is an error to delete a table that does not exist
	conn.DelTable(t.nft)
	conn.AddTable(t.nft)
	for _, s := range t.sets(t.nft) {
		must(conn.AddSet(s, nil))
	}
	t.addChains(conn, t.skeleton(t.mode, t.host))
}

// must panics for what the library refuses to encode: that is a fault in this package, whatever the model.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// usedChains returns the skeleton and the chains of the classes in use.
func (t *table) usedChains() []chain {
	chains := t.skeleton(t.mode, t.host)
	seen := map[string]bool{}
	for c := range t.classes {
		for _, own := range t.chainsOf(c, t.mode, t.host) {
			if !seen[own.name] {
				seen[own.name] = true
				chains = append(chains, own)
			}
		}
	}
	return chains
}

func (t *table) addChains(conn *nft.Conn, chains []chain) {
	for _, c := range chains {
		n := &nft.Chain{Name: c.name, Table: t.nft}
		if c.hook != nil {
			policy := nft.ChainPolicyAccept
			n.Type, n.Hooknum, n.Priority, n.Policy = c.hook.kind, c.hook.num, &c.hook.priority, &policy
		}
		conn.AddChain(n)
		conn.FlushChain(n)
		for _, r := range c.rules {
			conn.AddRule(&nft.Rule{Table: t.nft, Chain: n, Exprs: r.exprs, UserData: r.userData()})
		}
	}
}

func (r rule) userData() []byte {
	if r.comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

// queue queues the change. Nothing refers to what is not there yet; what goes makes room for what takes its place.
func (t *table) queue(conn *nft.Conn, ch *change) {
	t.addChains(conn, ch.chains)
	for _, name := range slices.Sorted(maps.Keys(ch.del)) {
		must(conn.SetDeleteElements(t.setOf[name], ch.del[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(ch.add)) {
		must(conn.SetAddElements(t.setOf[name], ch.add[name]))
	}
}

func (t *table) String() string {
	if t.Family == dataplane.IPv6 {
		return "ip6 " + tableName
	}
	return "ip " + tableName
}
