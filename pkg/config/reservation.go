package config

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// parseReservations returns the reservations sorted by name. As with pools, the older one keeps what two have.
func parseReservations(resources []v1beta1.AddressReservation, pools allotment) (reservations []*Reservation, faults []Fault) {
	var taken allotment
	kept := map[string]bool{}
	for _, res := range oldestFirst(resources) {
		kept[res.Name] = res.Labels[v1beta1.LabelKept] == "true"
		reservation, reservationFaults := parseReservation(res, &taken, kept, pools)
		reservations = append(reservations, reservation)
		faults = append(faults, reservationFaults...)
	}
	slices.SortFunc(reservations, func(a, b *Reservation) int { return strings.Compare(a.Name, b.Name) })
	return reservations, faults
}

// parseReservation parses one. kept tells of this one and of the older ones which the controller made for Services that keep their addresses.
func parseReservation(res *v1beta1.AddressReservation, taken *allotment, kept map[string]bool, pools allotment) (*Reservation, []Fault) {
	r := &Reservation{Name: res.Name}
	if res.Spec.For != nil {
		r.Namespace, r.Service = res.Spec.For.Namespace, res.Spec.For.Service
	}
	f := complaints{kind: KindAddressReservation, name: res.Name}
	for i, text := range res.Spec.Addresses {
		field := fmt.Sprintf("spec.addresses[%d]", i)
		wanted, err := ParseRange(text)
		if err != nil {
			f.fault(field, ReasonMalformedRange, err.Error())
			continue
		}
		free, overlaps := taken.take(wanted, res.Name, field)
		r.Ranges = append(r.Ranges, free...)
		for _, o := range overlaps {
			switch {
			case o.owner == res.Name:
				f.fault(field, ReasonDuplicateRange, fmt.Sprintf("%s is also in %s: take it out of one of the two", o.Range, o.field))
			case kept[res.Name] && kept[o.owner]:
				r.Common = append(r.Common, o.Range)
			case kept[res.Name]:
				// No fault of a person's: a Service may ask to keep an address that is reserved for its namespace.
				f.warn(field, ReasonOverlappingReservations, fmt.Sprintf(
					"%s is reserved by the older AddressReservation %q, and so is not kept for this Service: delete that one, or take the annotation %s from this Service",
					o.Range, o.owner, v1beta1.AnnotationKeep))
			default:
				f.fault(field, ReasonOverlappingReservations, fmt.Sprintf(
					"%s is reserved by the older AddressReservation %q (%s there), and this one goes without it: take it out of one of the two",
					o.Range, o.owner, o.field))
			}
		}
		if outside, _ := pools.split(wanted); len(outside) > 0 {
			f.warn(field, ReasonOutsidePools, fmt.Sprintf(
				"no IPAddressPool has %s, so there is nothing to reserve: correct the address, or add it to a pool", abridged(texts(outside), ", ")))
		}
	}
	r.Ranges = joined(r.Ranges)
	return r, f.faults
}

func texts(ranges []Range) []string {
	var out []string
	for _, r := range ranges {
		out = append(out, r.String())
	}
	return out
}

// Contains tells whether the address is reserved by it.
func (r *Reservation) Contains(a netip.Addr) bool { return contains(r.Ranges, a) }

// withheld tells whether the address is reserved for nobody.
func (c *Config) withheld(a netip.Addr) bool {
	return slices.ContainsFunc(c.Reservations, func(r *Reservation) bool { return r.Namespace == "" && r.Contains(a) })
}

// contains looks into ranges that are disjoint and ascending.
func contains(ranges []Range, a netip.Addr) bool {
	i := sort.Search(len(ranges), func(i int) bool { return a.Compare(ranges[i].To) <= 0 })
	return i < len(ranges) && ranges[i].Contains(a)
}
