package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

// String says it for a person: what is wrong first, then how everything stands.
func (e *Explanation) String() string {
	var b strings.Builder
	name := e.Namespace + "/" + e.Name
	switch e.Verdict {
	case Works:
		fmt.Fprintf(&b, "Service %s works.\n", name)
	case Unknown:
		fmt.Fprintf(&b, "Service %s: nothing wrong was found, but not all that matters could be read.\n", name)
	case NotOurs:
		fmt.Fprintf(&b, "Service %s is not Steelyard's.\n\n", name)
		e.Wrong.write(&b)
	default:
		fmt.Fprintf(&b, "Service %s does not work.\n\n", name)
		e.Wrong.write(&b)
	}
	if len(e.Also) > 0 {
		b.WriteString("\nAlso:\n")
		for i := range e.Also {
			e.Also[i].write(&b)
		}
	}
	for i := range e.Addresses {
		b.WriteByte('\n')
		var before *Address
		if i > 0 {
			before = &e.Addresses[i-1]
		}
		e.writeAddress(&b, &e.Addresses[i], before)
	}
	if len(e.Addresses) > 0 {
		e.writeEndpoints(&b)
	}
	writeGaps(&b, e.NotKnown)
	return b.String()
}

func (f *Finding) write(b *strings.Builder) {
	fmt.Fprintf(b, "  %s: %s\n", f.Reason, f.Message)
	for _, mend := range f.Mend {
		fmt.Fprintf(b, "  - %s\n", mend)
	}
}

func (e *Explanation) writeAddress(b *strings.Builder, a, before *Address) {
	known := e.knows(cluster.IPAddressPools)
	if a.Pool == "" && known {
		fmt.Fprintf(b, "%s, in no pool\n", a.Address)
		return
	}
	fmt.Fprintf(b, "%s, from %s\n", a.Address, orUnknown(known, "pool "+a.Pool, "a pool that is not known"))
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  local network:\t%s\n", a.layer2Text(known && e.knows(cluster.L2Advertisements)))
	fmt.Fprintf(table, "  routers (BGP):\t%s\n", a.bgpText(known && e.knows(cluster.BGPAdvertisements)))
	fmt.Fprintf(table, "  rules:\t%s\n", a.rulesText(e.Dataplane))
	table.Flush()
	if !known {
		return
	}
	if before != nil && before.sameNodes(a) {
		fmt.Fprintf(b, "  each node: as for %s\n", before.Address)
		return
	}
	writeNodes(b, a)
}

func orUnknown(known bool, text, otherwise string) string {
	if known {
		return text
	}
	return otherwise
}

// sameNodes tells whether the tables of nodes look alike.
func (a *Address) sameNodes(other *Address) bool {
	return slices.EqualFunc(a.Nodes, other.Nodes, func(m, n Node) bool { return slices.Equal(m.row(a), n.row(other)) })
}

func (a *Address) layer2Text(known bool) string {
	var owners []string
	for i := range a.Nodes {
		if n := &a.Nodes[i]; n.Layer2.Announced {
			on := "all interfaces"
			if len(n.Layer2.Interfaces) > 0 {
				on = strings.Join(n.Layer2.Interfaces, ", ")
			}
			owners = append(owners, fmt.Sprintf("%s answers on %s", n.Node, on))
		}
	}
	return announcedText(strings.Join(owners, "; "), "nobody answers", "L2Advertisement", a.L2Advertisements, known)
}

func (a *Address) bgpText(known bool) string {
	var nodes, peers, prefixes []string
	for i := range a.Nodes {
		n := &a.Nodes[i]
		if len(n.BGP.Peers) == 0 {
			continue
		}
		nodes = append(nodes, n.Node)
		peers = append(peers, n.BGP.Peers...)
		for _, p := range n.BGP.Prefixes {
			prefixes = append(prefixes, p.String())
		}
	}
	text := ""
	if len(nodes) > 0 {
		text = fmt.Sprintf("%s %s %s of %s", abridged(nodes), verb(len(nodes), "tell"), abridged(distinct(peers)), abridged(distinct(prefixes)))
	}
	return announcedText(text, "nobody is told", "BGPAdvertisement", a.BGPAdvertisements, known)
}

func announcedText(text, nobody, kind string, ads []string, known bool) string {
	switch {
	case text != "" && !known:
		return text
	case !known:
		return "not known"
	case len(ads) == 0 && text == "":
		return "no " + kind + " is for it"
	case len(ads) == 0:
		return text + ", though no " + kind + " is for it"
	case text == "":
		text = nobody
	}
	return fmt.Sprintf("%s (%s %s)", text, kind, strings.Join(ads, ", "))
}

func distinct(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *Address) rulesText(dataplane string) string {
	if dataplane == "off" {
		return "the cluster's own proxy has them (dataplane off)"
	}
	on, of := 0, 0
	for i := range a.Nodes {
		if c := a.Nodes[i].Carried; c != nil {
			of++
			if *c {
				on++
			}
		}
	}
	if of == 0 {
		return "not known: no speaker was asked"
	}
	text := fmt.Sprintf("in the kernel of %d of %d nodes", on, of)
	if missing := len(a.Nodes) - of; missing > 0 {
		text += fmt.Sprintf("; not asked: %d", missing)
	}
	return text
}

// writeNodes writes a table of what each node makes of the address, with the columns that have something to say.
func writeNodes(b io.Writer, a *Address) {
	if len(a.Nodes) == 0 {
		return
	}
	rows := [][]string{{"NODE", "ENDPOINTS", "LOCAL NETWORK", "ROUTERS", "RULES"}}
	for i := range a.Nodes {
		rows = append(rows, a.Nodes[i].row(a))
	}
	fmt.Fprintln(b)
	writeTable(b, rows)
}

// writeTable writes rows of cells, the first of which are the headings, without the columns that are empty.
func writeTable(b io.Writer, rows [][]string) {
	var padded strings.Builder
	table := tabwriter.NewWriter(&padded, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		var cells []string
		for column, cell := range row {
			if slices.ContainsFunc(rows[1:], func(r []string) bool { return r[column] != "" }) {
				cells = append(cells, cell)
			}
		}
		fmt.Fprintln(table, "  "+strings.Join(cells, "\t"))
	}
	table.Flush()
	for line := range strings.Lines(padded.String()) {
		fmt.Fprintln(b, strings.TrimRight(line, " \n"))
	}
}

func (n *Node) row(a *Address) []string {
	layer2, bgp, rules := "", "", ""
	switch {
	case len(a.L2Advertisements) == 0:
	case n.Layer2.Announced && !n.Live:
		layer2 = "answered, speaker is gone"
	case n.Layer2.Announced:
		layer2 = "answers"
	case n.Layer2.Refused != "":
		layer2 = "no: " + string(n.Layer2.Refused)
	default:
		layer2 = "may answer"
	}
	switch {
	case len(a.BGPAdvertisements) == 0:
	case len(n.BGP.Peers) > 0:
		var peers []string
		for _, p := range n.BGP.Peers {
			if slices.Contains(n.Down, p) {
				p += " (down)"
			}
			peers = append(peers, p)
		}
		bgp = "tells " + abridged(peers)
	case n.BGP.Refused != "":
		bgp = "no: " + string(n.BGP.Refused)
	default:
		bgp = "may tell"
	}
	if n.Carried != nil {
		rules = map[bool]string{true: "yes", false: "no"}[*n.Carried]
	}
	return []string{n.Node, fmt.Sprint(n.Endpoints), layer2, bgp, rules}
}

func (e *Explanation) writeEndpoints(b *strings.Builder) {
	serving, others, nodes := 0, 0, 0
	for _, on := range e.Endpoints {
		serving += on.Serving
		others += on.NotServing
		if on.Serving > 0 {
			nodes++
		}
	}
	if !e.knows(cluster.EndpointSlices) {
		return
	}
	if serving == 0 {
		b.WriteString("\nEndpoints: none serves")
	} else {
		fmt.Fprintf(b, "\nEndpoints: %d %s, on %s", serving, verb(serving, "serve"), count(nodes, "node"))
	}
	if others > 0 {
		fmt.Fprintf(b, "; not serving: %d", others)
	}
	if e.Policy != "" {
		fmt.Fprintf(b, "; externalTrafficPolicy is %s", e.Policy)
	}
	b.WriteString(".\n")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// verb returns it as it is said of so many.
func verb(n int, plural string) string {
	if n == 1 {
		return plural + "s"
	}
	return plural
}

// writeGaps says what could not be read.
func writeGaps(b *strings.Builder, gaps []cluster.Gap) {
	if len(gaps) == 0 {
		return
	}
	b.WriteString("\nNot known:\n")
	for len(gaps) > 0 {
		why := gaps[0].Why
		var same []string
		var others []cluster.Gap
		for _, g := range gaps {
			if g.Why == why {
				same = append(same, g.Resource)
			} else {
				others = append(others, g)
			}
		}
		fmt.Fprintf(b, "  %s: %s\n", strings.Join(same, ", "), why)
		gaps = others
	}
}
