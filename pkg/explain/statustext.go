package explain

import (
	"fmt"
	"strings"

	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// String says it for a person.
func (in *Installation) String() string {
	var b strings.Builder
	if in.Namespace == "" {
		b.WriteString("Steelyard: where it is installed is not known.\n")
	} else {
		fmt.Fprintf(&b, "Steelyard in namespace %s; %s; dataplane %s.\n", in.Namespace, in.classText(), orUnknown(in.Dataplane != "", in.Dataplane, "not known"))
	}
	if len(in.Wrong) > 0 {
		b.WriteString("\nWrong:\n")
		for i := range in.Wrong {
			in.Wrong[i].write(&b)
		}
	}
	leads := "nobody leads"
	if in.Controller.Leader != "" {
		leads = in.Controller.Leader + " leads"
	}
	if in.Namespace != "" {
		fmt.Fprintf(&b, "\nController: %d of %d ready, %s.\n", in.Controller.Ready, in.Controller.Pods, leads)
	}
	in.writeSpeakers(&b)
	in.writeSessions(&b)
	if len(in.Faults) > 0 {
		b.WriteString("\nConfiguration:\n")
	}
	for _, f := range in.Faults {
		about := string(f.Reason)
		if f.Warning {
			about += ", a warning"
		}
		fmt.Fprintf(&b, "  %s %s (%s): %s: %s\n", f.Kind, f.Name, about, f.Field, f.Message)
	}
	writeWaiting(&b, "Services without an address", in.Waiting)
	writeWaiting(&b, "Services that nobody announces", in.Unannounced)
	writeGaps(&b, in.NotKnown)
	return b.String()
}

func writeWaiting(b *strings.Builder, title string, services []Waiting) {
	const longest = 20
	if len(services) > 0 {
		fmt.Fprintf(b, "\n%s:\n", title)
	}
	for i, w := range services {
		if i == longest {
			fmt.Fprintf(b, "  and %d more: -o json has all\n", len(services)-longest)
			break
		}
		fmt.Fprintf(b, "  %s (%s): %s\n", w.Service, w.Reason, w.Message)
	}
}

func (in *Installation) classText() string {
	if in.Class == "" {
		return "it serves Services without a class"
	}
	return "it serves Services of class " + in.Class + " and of none"
}

func (in *Installation) writeSpeakers(b *strings.Builder) {
	if in.Namespace == "" {
		return
	}
	rows := [][]string{{"NODE", "READY", "SEES", "QUORUM", "ANSWERS FOR", "ROUTES", "RULES", "CONFLICTS"}}
	ready := 0
	yes := map[bool]string{true: "yes", false: "no"}
	for _, s := range in.Speakers {
		if s.Ready {
			ready++
		}
		row := []string{s.Node, yes[s.Ready], "", "", "", "", "", ""}
		if s.Pod == "" {
			row[1] = "none there"
		}
		if v := s.Says; v != nil {
			row[2], row[3] = fmt.Sprintf("%d of %d", len(v.Members), len(in.Speakers)), yes[v.Quorum]
			row[4], row[5] = fmt.Sprint(v.Announces), fmt.Sprint(v.Routes)
			if v.Dataplane != nil {
				row[6] = map[bool]string{true: "settled", false: "not settled"}[v.Dataplane.Settled] + " (" + v.Dataplane.Backend + ")"
			}
			row[7] = join(v.Conflicts)
		}
		rows = append(rows, row)
	}
	fmt.Fprintf(b, "\nSpeakers: ready on %d of %s.\n", ready, count(len(in.Speakers), "node"))
	writeTable(b, rows)
}

// writeSessions writes those that are not up.
func (in *Installation) writeSessions(b *strings.Builder) {
	if len(in.Sessions) == 0 {
		return
	}
	rows := [][]string{{"NODE", "PEER", "ADDRESS", "STATE", "BFD", "LAST ERROR"}}
	for i := range in.Sessions {
		s := &in.Sessions[i]
		if s.State == string(bgp.Established) {
			continue
		}
		bfd := ""
		if s.BFD != nil {
			bfd = s.BFD.State
		}
		rows = append(rows, []string{s.Node, s.Peer, s.Address, s.State, bfd, s.LastError})
	}
	up := len(in.Sessions) - len(rows) + 1
	fmt.Fprintf(b, "\nBGP sessions: %d of %d up.\n", up, len(in.Sessions))
	if len(rows) > 1 {
		writeTable(b, rows)
	}
}
