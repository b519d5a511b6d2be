package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

// layer2Findings finds what is wrong with an address on the local network.
func (f *facts) layer2Findings(a *Address) []ranked {
	var owners, candidates []*Node
	for i := range a.Nodes {
		switch n := &a.Nodes[i]; {
		case n.Layer2.Announced && n.Live:
			owners = append(owners, n)
		case n.Layer2.Refused == "" || n.Layer2.Refused == announce.NotCarried:
			candidates = append(candidates, n)
		}
	}
	if r := f.conflicts(a); r != nil {
		return r
	}
	switch {
	case len(owners) > 1:
		return a.say(degraded, SeveralOwners, names(owners)+" answer for %s on the local network at the same time",
			"after a change that ends within a second; if it lasts, the speakers don't see each other: steelyardctl status compares their members")
	case len(owners) == 1 && lacksRules(owners[0].Carried):
		return a.uncarried(owners, notCarried)
	case len(owners) == 1:
		return nil
	}
	return f.nobody(a, "on the local network", candidates, func(n *Node) announce.Reason { return n.Layer2.Refused })
}

// conflicts finds strangers that have the address, as speakers tell that nobody has written a condition of.
func (f *facts) conflicts(a *Address) []ranked {
	for _, n := range a.Nodes {
		if n.Layer2.Conflict != "" {
			return a.say(conflict, string(announce.AddressConflict), fmt.Sprintf("%%s is not ours alone, as node %s has noticed: %s", n.Node, n.Layer2.Conflict),
				announce.Say(announce.AddressConflict).Mend)
		}
	}
	return nil
}

// bgpFindings finds what is wrong with what routers are told of an address.
func (f *facts) bgpFindings(a *Address) []ranked {
	var tell, up, candidates, stale, uncarried []*Node
	for i := range a.Nodes {
		n := &a.Nodes[i]
		told := len(n.BGP.Peers) > 0
		switch {
		case told && !n.Live:
			stale = append(stale, n)
		case told:
			tell = append(tell, n)
			if len(n.Down) < len(n.BGP.Peers) {
				up = append(up, n)
			}
		case n.BGP.Refused == announce.NotCarried || n.BGP.Refused == "" && lacksRules(n.Carried):
			uncarried = append(uncarried, n)
			candidates = append(candidates, n)
		case n.BGP.Refused == "":
			candidates = append(candidates, n)
		}
	}
	switch {
	case len(tell) == 0:
		return f.nobody(a, "to routers", candidates, func(n *Node) announce.Reason { return n.BGP.Refused })
	case len(up) == 0:
		return a.say(sessionDown, string(announce.SessionDown), "no router hears of %s, because no session is up: "+f.downs(tell), announce.Say(announce.SessionDown).Mend)
	}
	var found []ranked
	if downs := f.downs(tell); downs != "" {
		found = a.say(degraded, string(announce.SessionDown), "not every router hears of %s from every node: "+downs, announce.Say(announce.SessionDown).Mend)
	}
	if len(uncarried) > 0 {
		found = append(found, a.uncarried(uncarried, degraded)...)
	}
	if len(stale) > 0 {
		words := announce.Say(announce.NoLiveSpeaker)
		found = append(found, a.say(degraded, string(announce.NoLiveSpeaker), names(stale)+" told routers of %s, but the speaker there does not run any more", words.Mend)...)
	}
	return found
}

// nobody finds why no node announces an address by a protocol.
func (f *facts) nobody(a *Address, how string, candidates []*Node, refusal func(*Node) announce.Reason) []ranked {
	if len(candidates) > 0 {
		return f.nobodyDoes(a, how, candidates)
	}
	if len(a.Nodes) == 0 {
		return nil // they are not known
	}
	byReason := map[announce.Reason][]string{}
	var reasons []announce.Reason
	for i := range a.Nodes {
		reason := refusal(&a.Nodes[i])
		if byReason[reason] == nil {
			reasons = append(reasons, reason)
		}
		byReason[reason] = append(byReason[reason], a.Nodes[i].Node)
	}
	slices.Sort(reasons)
	var why, mend []string
	for _, reason := range reasons {
		nodes := abridged(byReason[reason])
		why = append(why, nodes+" ("+string(reason)+")")
		refused := f.refusedSessions(byReason[reason])
		if reason == announce.NoPeer && len(refused) > 0 {
			mend = append(mend, refused...)
			continue
		}
		mend = append(mend, fmt.Sprintf("%s: %s; %s", nodes, announce.Say(reason).What, announce.Say(reason).MendOn(byReason[reason])))
	}
	rank, reason := noNode, announce.NoEligibleNode
	message := fmt.Sprintf("no node may announce %%s %s: %s", how, strings.Join(why, "; "))
	if f.spec.Local && slices.Contains(reasons, announce.NoLocalEndpoint) {
		rank, reason = noLocalEndpoint, announce.NoLocalEndpoint
		message = fmt.Sprintf("externalTrafficPolicy is Local, and no node that has an endpoint may announce %%s %s: endpoints serve on %s; refused are %s",
			how, where(f.spec.Serving), strings.Join(why, "; "))
	}
	return a.say(rank, string(reason), message, mend...)
}

// nobodyDoes finds why no node announces an address that some may.
func (f *facts) nobodyDoes(a *Address, how string, candidates []*Node) []ranked {
	var uncarried, able, probing, dead []*Node
	for _, n := range candidates {
		switch {
		case lacksRules(n.Carried):
			uncarried = append(uncarried, n)
		case n.Layer2.Owner == n.Node && !n.Layer2.Announced:
			probing = append(probing, n)
			fallthrough
		default:
			able = append(able, n)
		}
	}
	for i := range a.Nodes {
		if n := &a.Nodes[i]; n.Layer2.Announced && !n.Live {
			dead = append(dead, n)
		}
	}
	switch {
	case len(able) == 0:
		return a.uncarried(uncarried, notCarried)
	case len(probing) > 0:
		return a.say(notAnnounced, NotAnnounced, names(probing)+" is about to answer for %s, and looks first whether another machine has it", "look again in a few seconds")
	case !f.Knows(cluster.Announcements):
		return nil
	case len(dead) > 0:
		return a.say(speakerDead, string(announce.NoLiveSpeaker), names(dead)+" answered for %s last, but the speaker there does not run any more; "+
			"nobody has taken over yet, though "+names(able)+" may", "look again in a few seconds", announce.Say(announce.NoLiveSpeaker).Mend)
	}
	return a.say(notAnnounced, NotAnnounced, fmt.Sprintf("nobody announces %%s %s, though %s may", how, names(able)),
		"a fresh address is announced within a few seconds, after a look whether another machine has it: look again",
		fmt.Sprintf("if nothing has changed, see what the speaker there says: kubectl -n %s logs -l app.kubernetes.io/component=speaker --prefix | grep '%s'", cmp.Or(f.Namespace, "NAMESPACE"), a.Address))
}

// refusedSessions says why nodes can't have sessions with peers that select them.
func (f *facts) refusedSessions(nodes []string) []string {
	var all grouped
	for _, node := range nodes {
		for _, p := range f.cfg.BGPPeers {
			session := f.session(node, p.Name)
			if session == nil || session.State != refusedState {
				continue
			}
			why := session.LastError
			if why == "" {
				words := announce.Say(announce.Reason(session.Reason))
				why = words.What + "; " + words.Mend
			}
			all.add("no session with BGPPeer "+p.Name+": "+why, node)
		}
	}
	return all.texts(": ")
}

// downs says which sessions of the nodes are down, and why.
func (f *facts) downs(nodes []*Node) string {
	var all grouped
	for _, n := range nodes {
		for _, peer := range n.Down {
			state := "nothing is known of it"
			if session := f.session(n.Node, peer); session != nil {
				if state = session.State; session.LastError != "" {
					state += ", " + session.LastError
				}
			}
			all.add(peer+" ("+state+")", n.Node)
		}
	}
	return strings.Join(all.texts(" with BGPPeer "), "; ")
}

// grouped are nodes by what is to be said of them, in the order that it was first said.
type grouped struct {
	said  []string
	nodes map[string][]string
}

func (g *grouped) add(what, node string) {
	if g.nodes == nil {
		g.nodes = map[string][]string{}
	}
	if g.nodes[what] == nil {
		g.said = append(g.said, what)
	}
	g.nodes[what] = append(g.nodes[what], node)
}

func (g *grouped) texts(between string) []string {
	var all []string
	for _, what := range g.said {
		all = append(all, abridged(g.nodes[what])+between+what)
	}
	return all
}

func (a *Address) say(rank rank, reason, message string, mend ...string) []ranked {
	return []ranked{{rank: rank, about: []netip.Addr{a.Address}, Finding: Finding{Reason: reason, Message: message, Mend: mend}}}
}

func (a *Address) uncarried(nodes []*Node, rank rank) []ranked {
	return a.say(rank, string(announce.NotCarried), "the rules for %s are not in the kernel of "+names(nodes)+", so packets for it would be lost there", announce.Say(announce.NotCarried).Mend)
}

func names(nodes []*Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Node)
	}
	return abridged(all)
}

func where(serving []string) string {
	var all []string
	for _, node := range serving {
		if node == "" {
			node = "an unnamed node"
		}
		all = append(all, node)
	}
	return abridged(all)
}

// most is how many names a person wants to read in a sentence.
const most = 5

// abridged joins the first few.
func abridged(all []string) string {
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}
