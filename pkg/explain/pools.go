package explain

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/assign"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// Pools are all pools, and what of them is in use.
type Pools struct {
	Pools []Pool `json:"pools"`
	// NotKnown is what could not be read.
	NotKnown []cluster.Gap `json:"notKnown,omitempty"`
}

// Pool is an IPAddressPool as the controller counts it.
type Pool struct {
	Name      string                     `json:"name"`
	Addresses []string                   `json:"addresses"`
	Strategy  v1beta1.AllocationStrategy `json:"strategy"`
	// AutoAssign: Services may have addresses of it unasked.
	AutoAssign bool `json:"autoAssign"`
	IPv4       Use  `json:"ipv4"`
	IPv6       Use  `json:"ipv6"`
	// Counted: a controller has looked at the pool.
	Counted bool `json:"counted"`
	// Conditions are those that are not as they should be.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Holders are in the order of their addresses.
	Holders []Holder `json:"holders,omitempty"`
	// Reserved are the ranges that AddressReservations take from the pool.
	Reserved []Reserved `json:"reserved,omitempty"`
}

// Use counts addresses of one family; math.MaxInt64 stands for more.
type Use struct {
	Total int64 `json:"total"`
	Used  int64 `json:"used"`
	Free  int64 `json:"free"`
}

// Holder is an address and the Services that have it, namespace/name.
type Holder struct {
	Address  netip.Addr `json:"address"`
	Services []string   `json:"services"`
}

// Reserved is a range that only some may have.
type Reserved struct {
	Range string `json:"range"`
	// For is namespace/name of a Service, a namespace, or "" for nobody.
	For         string `json:"for,omitempty"`
	Reservation string `json:"reservation"`
}

// PoolsOf returns the pools, sorted by name; with holders, also who has which address.
func PoolsOf(s *cluster.Snapshot, holders bool) *Pools {
	cfg, _ := config.Parse(s.Resources)
	out := &Pools{Pools: []Pool{}, NotKnown: s.Gaps}
	for i := range s.Pools {
		p := newPool(&s.Pools[i])
		if parsed := cfg.Pool(p.Name); holders && parsed != nil {
			p.Holders = holdersOf(s, parsed)
			p.Reserved = reservedOf(cfg, parsed)
		}
		out.Pools = append(out.Pools, p)
	}
	slices.SortFunc(out.Pools, func(a, b Pool) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func newPool(res *v1beta1.IPAddressPool) Pool {
	status := &res.Status
	p := Pool{
		Name: res.Name, Addresses: res.Spec.Addresses, Strategy: res.Spec.Strategy,
		AutoAssign: res.Spec.AutoAssign == nil || *res.Spec.AutoAssign,
		IPv4:       Use{status.TotalIPv4, status.AssignedIPv4, status.AvailableIPv4},
		IPv6:       Use{status.TotalIPv6, status.AssignedIPv6, status.AvailableIPv6},
		Counted:    len(status.Conditions) > 0,
	}
	if p.Strategy == "" {
		p.Strategy = v1beta1.StrategyLowest
	}
	for _, c := range status.Conditions {
		good := metav1.ConditionFalse
		if c.Type == string(config.ConditionValid) {
			good = metav1.ConditionTrue
		}
		if c.Status != good {
			p.Conditions = append(p.Conditions, c)
		}
	}
	return p
}

func holdersOf(s *cluster.Snapshot, pool *config.Pool) []Holder {
	services := map[netip.Addr][]string{}
	for i := range s.Services {
		svc := &s.Services[i]
		if !assign.Serves(svc, s.Class()) {
			continue
		}
		for _, a := range assign.Addresses(svc) {
			if pool.Contains(a) {
				services[a] = append(services[a], svc.Namespace+"/"+svc.Name)
			}
		}
	}
	var all []Holder
	for a, names := range services {
		slices.Sort(names)
		all = append(all, Holder{a, names})
	}
	slices.SortFunc(all, func(a, b Holder) int { return a.Address.Compare(b.Address) })
	return all
}

func reservedOf(cfg *config.Config, pool *config.Pool) []Reserved {
	var all []Reserved
	for _, r := range cfg.Reservations {
		whom := strings.TrimSuffix(r.Namespace+"/"+r.Service, "/")
		for _, taken := range r.Ranges {
			for _, of := range pool.Ranges {
				if taken.From.Compare(of.To) <= 0 && of.From.Compare(taken.To) <= 0 {
					all = append(all, Reserved{taken.String(), whom, r.Name})
				}
			}
		}
	}
	return all
}

// String says it for a person.
func (p *Pools) String() string {
	var b strings.Builder
	rows := [][]string{{"POOL", "IPV4 USED", "IPV4 FREE", "IPV4 TOTAL", "IPV6 USED", "IPV6 FREE", "IPV6 TOTAL", "STRATEGY", "AUTO ASSIGN"}}
	for i := range p.Pools {
		pool := &p.Pools[i]
		row := append([]string{pool.Name}, append(pool.IPv4.cells(), pool.IPv6.cells()...)...)
		rows = append(rows, append(row, string(pool.Strategy), map[bool]string{true: "yes", false: "no"}[pool.AutoAssign]))
	}
	if len(p.Pools) == 0 {
		b.WriteString("There is no IPAddressPool, so no Service gets an address: create one.\n")
	} else {
		writeTable(&b, rows)
	}
	for i := range p.Pools {
		p.Pools[i].write(&b)
	}
	writeGaps(&b, p.NotKnown)
	return b.String()
}

// cells are empty for a family that the pool has no addresses of.
func (u Use) cells() []string {
	if u.Total == 0 && u.Used == 0 {
		return []string{"", "", ""}
	}
	return []string{number(u.Used), number(u.Free), number(u.Total)}
}

func number(n int64) string {
	if n == math.MaxInt64 {
		return "over 2^63"
	}
	return fmt.Sprint(n)
}

func (p *Pool) write(b *strings.Builder) {
	if !p.Counted {
		fmt.Fprintf(b, "\n%s: no controller has looked at it yet; see steelyardctl status\n", p.Name)
	}
	for _, c := range p.Conditions {
		fmt.Fprintf(b, "\n%s: %s is %s (%s): %s\n", p.Name, c.Type, c.Status, c.Reason, c.Message)
	}
	if len(p.Holders)+len(p.Reserved) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", p.Name)
	rows := [][]string{{"ADDRESS", "SERVICES"}}
	for _, h := range p.Holders {
		rows = append(rows, []string{h.Address.String(), strings.Join(h.Services, ", ")})
	}
	for _, r := range p.Reserved {
		whom := "for nobody"
		if r.For != "" {
			whom = "for " + r.For
		}
		rows = append(rows, []string{r.Range, fmt.Sprintf("reserved %s (AddressReservation %s)", whom, r.Reservation)})
	}
	writeTable(b, rows)
}
