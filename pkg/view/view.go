// Package view is what a speaker tells of itself to those who ask, as JSON, on the port of its metrics: what this node knows, holds and
// refuses, with the reasons. It keeps no secrets.
package view

import (
	"net/netip"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

const (
	// SpeakerPath answers with a Speaker.
	SpeakerPath = "/view"
	// ServicePath, followed by namespace/name, answers with a Service; for a Service that the speaker does not know, with 404.
	ServicePath = "/view/services/"
)

// Speaker is one node's speaker.
type Speaker struct {
	Node string `json:"node"`
	// Members are the live speakers that it sees, itself among them, sorted.
	Members []string `json:"members"`
	// Quorum: it sees more than half of the speakers.
	Quorum bool `json:"quorum"`
	// Announces is how many addresses it answers for on the local network, and Routes how many prefixes it tells routers.
	Announces int `json:"announces"`
	Routes    int `json:"routes"`
	// Conflicts are the addresses that a stranger on the network answers for.
	Conflicts []netip.Addr `json:"conflicts,omitempty"`
	// Dataplane is nil in mode off.
	Dataplane *Dataplane `json:"dataplane,omitempty"`
}

// Dataplane is a node's rules for Services.
type Dataplane struct {
	Mode    string `json:"mode"`
	Backend string `json:"backend"`
	// Settled: the kernel has the rules for all that is known.
	Settled bool `json:"settled"`
}

// Service is what a node makes of one Service.
type Service struct {
	Node      string    `json:"node"`
	Addresses []Address `json:"addresses"`
}

// Address is what a node makes of one of a Service's addresses.
type Address struct {
	Address netip.Addr `json:"address"`
	Pool    string     `json:"pool"`
	// Carried: the node's rules for the address are in the kernel; nil in mode off.
	Carried *bool  `json:"carried,omitempty"`
	Layer2  Layer2 `json:"layer2"`
	BGP     BGP    `json:"bgp"`
}

// Layer2 is what becomes of an address on the local network.
type Layer2 struct {
	// Owner is the node that the speakers agreed on; "" for nobody.
	Owner string `json:"owner,omitempty"`
	// Announced: this node answers for it, on the interfaces, or on all.
	Announced  bool     `json:"announced"`
	Interfaces []string `json:"interfaces,omitempty"`
	// Refused is why this node is no candidate; empty for a candidate.
	Refused announce.Reason `json:"refused,omitempty"`
	// Conflict tells of the stranger who has the address.
	Conflict string `json:"conflict,omitempty"`
}

// BGP is what becomes of an address in this node's sessions with routers.
type BGP struct {
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Peers    []string       `json:"peers,omitempty"`
	// Refused is why routers are told nothing; empty if they are told.
	Refused announce.Reason `json:"refused,omitempty"`
}
