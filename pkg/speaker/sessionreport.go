package speaker

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/bfd"
	"github.com/steelyard-lb/steelyard/pkg/bgp"
)

// refusedState is the State of sessions that the node can't have.
const refusedState = "Refused"

// report tells how the sessions stand.
func (r *routing) report(live []bgp.Session) {
	var all []v1beta1.BGPSessionStatus
	watching := map[target]bfd.Status{}
	for _, st := range r.config.BFD.Statuses() {
		watching[target{st.Peer, st.Device}] = st
	}
	for i := range r.sessions.peers {
		p := &r.sessions.peers[i]
		s := v1beta1.BGPSessionStatus{Node: r.config.Node, Peer: p.Name, Address: p.Address.String(), PeerASN: p.PeerASN, State: "Idle"}
		if j := slices.IndexFunc(live, func(l bgp.Session) bool { return l.Peer == p.Name }); j >= 0 {
			l := &live[j]
			s.State, s.Since, s.LastError = string(l.State), metav1.NewTime(l.Since), l.LastError
			s.AnnouncedPrefixes, s.PeerASN = int32(min(l.Announced, 1<<31-1)), cmp.Or(l.PeerASN, s.PeerASN)
			if l.Local.IsValid() {
				s.LocalAddress = l.Local.String()
			}
		}
		if b, ok := r.sessions.bfd[p.Name]; ok {
			s.BFD = &v1beta1.BFDStatus{State: bfd.Down.String()}
			if st, ok := watching[target{b.Peer, b.Device}]; ok {
				s.BFD.State = st.State.String()
				if st.Diagnostic != bfd.NoDiagnostic {
					s.BFD.Diagnostic = st.Diagnostic.String()
				}
			}
		}
		all = append(all, s)
	}
	for name, refusal := range r.sessions.refused {
		all = append(all, v1beta1.BGPSessionStatus{
			Node: r.config.Node, Peer: name, State: refusedState, Reason: string(refusal.Reason), LastError: refusal.Message,
		})
	}
	slices.SortFunc(all, func(a, b v1beta1.BGPSessionStatus) int { return cmp.Compare(a.Peer, b.Peer) })
	r.config.Report.SetSessions(all)
}
