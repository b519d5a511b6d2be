package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// parseBGPPeer returns nil for a peer that no session can be had with. One whose BFDProfile is missing goes without BFD: its routes are
// worth more than a quick notice of its failure.
func parseBGPPeer(res *v1beta1.BGPPeer, profiles map[string]*BFDProfile, r *Resources) (*BGPPeer, []Fault) {
	spec := &res.Spec
	f := complaints{kind: KindBGPPeer, name: res.Name}
	p := &BGPPeer{
		Name:        res.Name,
		Port:        spec.PeerPort,
		Device:      spec.VRF,
		Passive:     spec.Passive,
		Multihop:    spec.EBGPMultiHop,
		DualStack:   spec.DualStackAddressFamily,
		TTLSecurity: spec.TTLSecurity,
		Password:    spec.Password,
	}
	if p.Port == 0 {
		p.Port = 179
	}
	p.setPlace(spec, &f)
	p.setSource(spec, &f)
	p.setASNs(spec, &f)
	p.setHops(&f)
	p.setTimes(spec, &f)
	p.setPassword(spec, r, &f)
	unusable := f.harmful

	p.Nodes = selectors(spec.NodeSelectors, "spec.nodeSelectors", &f)
	judgeNodes(p.Nodes, r.Nodes, "there is no session", &f)
	if name := spec.BFDProfile; name != "" {
		profile, ok := profiles[name]
		switch {
		case !ok:
			f.fault("spec.bfdProfile", ReasonBFDProfileNotFound, fmt.Sprintf(
				"there is no BFDProfile %q, and the peer goes without BFD: create it, or name one of kubectl get bfdprofiles.steelyard.io", name))
		case profile == nil:
			f.fault("spec.bfdProfile", ReasonBFDProfileInvalid, fmt.Sprintf(
				"the BFDProfile %q has a fault, and the peer goes without BFD: see kubectl describe bfdprofiles.steelyard.io %s", name, name))
		}
		p.BFD = profile
	}
	if unusable {
		return nil, f.faults
	}
	return p, f.faults
}

// setPlace sets the one of the four ways to find the peer.
func (p *BGPPeer) setPlace(spec *v1beta1.BGPPeerSpec, f *complaints) {
	var ways []string
	if spec.PeerAddress != "" {
		ways = append(ways, "spec.peerAddress")
		p.Address = sessionAddr(spec.PeerAddress, "spec.peerAddress", f)
		if p.Address.Is6() && p.Address.IsLinkLocalUnicast() && p.Address.Zone() == "" && p.Device == "" {
			f.fault("spec.peerAddress", ReasonInvalidValue, fmt.Sprintf(
				"%s is on every interface: write %s%%eth0 for that of eth0, or spec.interface alone", p.Address, p.Address))
		}
	}
	if from := spec.PeerAddressFrom; from != nil {
		if from.DefaultGateway != "" || from.NodeAnnotation == "" {
			ways = append(ways, "spec.peerAddressFrom.defaultGateway")
			p.Gateway = from.DefaultGateway
			if p.Gateway != string(corev1.IPv4Protocol) && p.Gateway != string(corev1.IPv6Protocol) {
				f.fault("spec.peerAddressFrom.defaultGateway", ReasonInvalidValue, fmt.Sprintf("%q is no family: write IPv4 or IPv6", p.Gateway))
			}
		}
		if from.NodeAnnotation != "" {
			ways = append(ways, "spec.peerAddressFrom.nodeAnnotation")
			p.Annotation = from.NodeAnnotation
		}
	}
	if spec.Interface != "" {
		ways = append(ways, "spec.interface")
		p.Interface = spec.Interface
	}
	switch len(ways) {
	case 0:
		f.fault("spec.peerAddress", ReasonMissingField, "is empty: write the peer's address, or set peerAddressFrom or interface")
	case 1:
	default:
		f.fault(ways[1], ReasonContradiction, fmt.Sprintf("%s is set too, and the peer can be in one place only: take one of them away", ways[0]))
	}
}

// sessionAddr reads an address that can be an end of a TCP connection.
func sessionAddr(text, field string, f *complaints) netip.Addr {
	a, err := parseZonedAddr(text)
	switch {
	case err != nil:
		f.fault(field, ReasonInvalidValue, fmt.Sprintf("%v: write one such as 192.0.2.1 or 2001:db8::1", err))
	case a.Zone() != "" && !a.IsLinkLocalUnicast():
		f.fault(field, ReasonInvalidValue, fmt.Sprintf("%s has a zone, which only a link-local address has: write %s", a, a.WithZone("")))
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		f.fault(field, ReasonInvalidValue, fmt.Sprintf("%s is not an address of a single host: write one such as 192.0.2.1 or 2001:db8::1", a))
	}
	return a
}

func (p *BGPPeer) setSource(spec *v1beta1.BGPPeerSpec, f *complaints) {
	if spec.SourceAddress != "" {
		p.Source = sessionAddr(spec.SourceAddress, "spec.sourceAddress", f)
		is6 := p.Interface != "" || p.Gateway == string(corev1.IPv6Protocol) || p.Address.Is6()
		is4 := p.Gateway == string(corev1.IPv4Protocol) || p.Address.Is4()
		switch {
		case (is6 && p.Source.Is4()) || (is4 && p.Source.Is6()):
			f.fault("spec.sourceAddress", ReasonContradiction, "is of another family than the peer's address: write one of the same family, or none")
		case p.Source.IsValid() && p.Source == p.Address:
			f.fault("spec.sourceAddress", ReasonContradiction, "is the peer's address: write the node's, or none")
		}
	}
	if spec.RouterID != "" {
		id, err := parseAddr(spec.RouterID)
		if err != nil || !id.Is4() || id.IsUnspecified() {
			f.fault("spec.routerID", ReasonInvalidValue, fmt.Sprintf("%q is no router ID: write it like an IPv4 address, such as 192.0.2.1", spec.RouterID))
		}
		p.RouterID = id
	}
}

func (p *BGPPeer) setASNs(spec *v1beta1.BGPPeerSpec, f *complaints) {
	const possible = "write 1 to 4294967295"
	p.LocalASN = spec.LocalASN
	if p.LocalASN == 0 {
		p.LocalASN = spec.MyASN
	}
	if spec.MyASN == 0 {
		f.fault("spec.myASN", ReasonInvalidValue, "0 is no AS number: "+possible)
	}
	p.PeerASN = spec.PeerASN
	switch {
	case spec.PeerASN != 0 && spec.DynamicASN != "":
		f.fault("spec.dynamicASN", ReasonContradiction, "spec.peerASN is set too: take one of the two away")
	case spec.PeerASN != 0 || spec.DynamicASN == v1beta1.DynamicASNExternal:
	case spec.DynamicASN == v1beta1.DynamicASNInternal:
		p.PeerASN = p.LocalASN
	case spec.DynamicASN == "":
		f.fault("spec.peerASN", ReasonMissingField, "0 is no AS number: "+possible+", or set dynamicASN")
	default:
		f.fault("spec.dynamicASN", ReasonInvalidValue, fmt.Sprintf("%q is not understood: write internal or external", spec.DynamicASN))
	}
}

func (p *BGPPeer) setHops(f *complaints) {
	if p.Multihop && p.PeerASN == p.LocalASN {
		f.fault("spec.ebgpMultiHop", ReasonContradiction, fmt.Sprintf(
			"is for peers of another AS, and this one is of ours (%d), where any number of hops is allowed: take it away, or mend the AS numbers", p.LocalASN))
	}
	if p.TTLSecurity > 254 {
		f.fault("spec.ttlSecurity", ReasonInvalidValue, fmt.Sprintf("%d hops are not possible: write 1 to 254", p.TTLSecurity))
	}
	if p.TTLSecurity > 0 && p.Multihop {
		f.fault("spec.ttlSecurity", ReasonContradiction, "says how far away the peer may be, and so does ebgpMultiHop: take one of the two away")
	}
}

// setTimes sets the timers. BGP counts whole seconds in 16 bits; a hold time is 0 or at least 3 s (RFC 4271, section 4.2).
func (p *BGPPeer) setTimes(spec *v1beta1.BGPPeerSpec, f *complaints) {
	const least, most = time.Second, 65535 * time.Second
	p.ConnectTime = seconds(spec.ConnectTime, 10*time.Second, least, most, "spec.connectTime", f)
	if spec.EnableGracefulRestart {
		p.RestartTime = seconds(spec.GracefulRestartTime, 120*time.Second, least, 4095*time.Second, "spec.gracefulRestartTime", f)
	}
	p.ShutdownTime = seconds(spec.GracefulShutdown, 0, 0, 20*time.Second, "spec.gracefulShutdown", f)

	keepalive := seconds(spec.KeepaliveTime, 30*time.Second, 0, most, "spec.keepaliveTime", f)
	hold := seconds(spec.HoldTime, min(3*keepalive, most), 0, most, "spec.holdTime", f)
	if spec.KeepaliveTime == nil {
		keepalive = (hold / 3).Truncate(time.Second)
	}
	p.HoldTime, p.KeepaliveTime = hold, keepalive
	switch {
	case hold > 0 && hold < 3*time.Second:
		f.fault("spec.holdTime", ReasonInvalidValue, fmt.Sprintf("%v is too short: write 0s for never, or at least 3s", hold))
	case keepalive > hold:
		f.fault("spec.keepaliveTime", ReasonContradiction, fmt.Sprintf("%v is longer than holdTime, %v: write a third of it", keepalive, hold))
	case keepalive == 0 && hold > 0:
		f.fault("spec.keepaliveTime", ReasonContradiction, fmt.Sprintf("without keepalives the peer ends the session after holdTime, %v: write a third of it", hold))
	}
}

// seconds returns the fallback for what is not set or not possible.
func seconds(d *metav1.Duration, fallback, least, most time.Duration, field string, f *complaints) time.Duration {
	if d == nil {
		return fallback
	}
	if d.Duration != d.Truncate(time.Second) || d.Duration < least || d.Duration > most {
		f.fault(field, ReasonInvalidValue, fmt.Sprintf("%v is not possible: write whole seconds, %.0fs to %.0fs", d.Duration, least.Seconds(), most.Seconds()))
		return fallback
	}
	return d.Duration
}

// setPassword never lets a peer go without the password that it is to have. The longest that the kernel takes has 80 bytes
// (TCP_MD5SIG_MAXKEYLEN).
func (p *BGPPeer) setPassword(spec *v1beta1.BGPPeerSpec, r *Resources, f *complaints) {
	const longest, secretField = 80, "spec.passwordSecret.name"
	if len(spec.Password) > longest {
		f.fault("spec.password", ReasonInvalidValue, fmt.Sprintf("has %d bytes and can have %d: write a shorter one", len(spec.Password), longest))
	}
	if spec.PasswordSecret == nil {
		return
	}
	if spec.Password != "" {
		f.fault("spec.passwordSecret", ReasonContradiction, "spec.password is set too: take one of the two away")
	}
	p.PasswordSecret = spec.PasswordSecret.Name
	if p.PasswordSecret == "" {
		f.fault(secretField, ReasonMissingField, "is empty: write the name of a Secret")
		return
	}
	if other := spec.PasswordSecret.Namespace; other != "" && r.Namespace != "" && other != r.Namespace {
		f.fault("spec.passwordSecret.namespace", ReasonInvalidValue, fmt.Sprintf(
			"Secrets are read in the namespace %q only: move the Secret there, and leave the namespace out", r.Namespace))
		return
	}
	if r.Secrets == nil {
		return
	}
	remedy := fmt.Sprintf("kubectl -n %s create secret generic %s --type=%s --from-literal=%s=...",
		r.Namespace, p.PasswordSecret, corev1.SecretTypeBasicAuth, corev1.BasicAuthPasswordKey)
	secret, ok := r.Secrets[p.PasswordSecret]
	password := string(secret.Data[corev1.BasicAuthPasswordKey])
	switch {
	case !ok:
		f.fault(secretField, ReasonSecretNotFound, fmt.Sprintf("there is no Secret %q of type %s in the namespace %q: %s",
			p.PasswordSecret, corev1.SecretTypeBasicAuth, r.Namespace, remedy))
	case secret.Type != corev1.SecretTypeBasicAuth:
		f.fault(secretField, ReasonSecretInvalid, fmt.Sprintf("the Secret %q is of type %s, which can't be changed: delete it, and %s",
			p.PasswordSecret, secret.Type, remedy))
	case password == "":
		f.fault(secretField, ReasonSecretInvalid, fmt.Sprintf("the Secret %q has no entry %q, or an empty one: kubectl -n %s edit secret %s",
			p.PasswordSecret, corev1.BasicAuthPasswordKey, r.Namespace, p.PasswordSecret))
	case len(password) > longest:
		f.fault(secretField, ReasonSecretInvalid, fmt.Sprintf("the password in the Secret %q has %d bytes and can have %d: write a shorter one",
			p.PasswordSecret, len(password), longest))
	case strings.TrimSpace(password) != password:
		f.warn(secretField, ReasonSecretInvalid, fmt.Sprintf(
			"the password in the Secret %q begins or ends with a space or a line break, which is part of it: if that is a mistake, use echo -n", p.PasswordSecret))
	}
}
