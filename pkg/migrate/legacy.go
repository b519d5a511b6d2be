package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/config"
)

// What MetalLB up to 0.12 read from its ConfigMap, and the kind AddressPool, which 0.13 had in its place for a while. Both say with a
// pool how it is announced.
type (
	legacyFile struct {
		Pools       []legacyPool      `json:"address-pools"`
		Peers       []legacyPeer      `json:"peers"`
		Communities map[string]string `json:"bgp-communities"`
		BFDProfiles []legacyBFD       `json:"bfd-profiles"`
	}
	legacyPool struct {
		Name          string     `json:"name"`
		Protocol      string     `json:"protocol"`
		Addresses     []string   `json:"addresses"`
		AvoidBuggyIPs bool       `json:"avoid-buggy-ips"`
		AutoAssign    *bool      `json:"auto-assign"`
		BGP           []legacyAd `json:"bgp-advertisements"`
	}
	legacyAd struct {
		Length4     *int32   `json:"aggregation-length"`
		Length6     *int32   `json:"aggregation-length-v6"`
		LocalPref   uint32   `json:"localpref"`
		Communities []string `json:"communities"`
	}
	legacyPeer struct {
		Name          string           `json:"name"`
		MyASN         uint32           `json:"my-asn"`
		PeerASN       uint32           `json:"peer-asn"`
		Address       string           `json:"peer-address"`
		SourceAddress string           `json:"source-address"`
		Port          uint16           `json:"peer-port"`
		HoldTime      *metav1.Duration `json:"hold-time"`
		KeepaliveTime *metav1.Duration `json:"keepalive-time"`
		RouterID      string           `json:"router-id"`
		Nodes         []legacySelector `json:"node-selectors"`
		Password      string           `json:"password"`
		BFDProfile    string           `json:"bfd-profile"`
		Multihop      bool             `json:"ebgp-multihop"`
	}
	legacySelector struct {
		Labels      map[string]string                 `json:"match-labels"`
		Expressions []metav1.LabelSelectorRequirement `json:"match-expressions"`
	}
	legacyBFD struct {
		Name       string  `json:"name"`
		Receive    *uint32 `json:"receive-interval"`
		Transmit   *uint32 `json:"transmit-interval"`
		Multiplier *uint32 `json:"detect-multiplier"`
		Echo       *uint32 `json:"echo-interval"`
		EchoMode   *bool   `json:"echo-mode"`
		Passive    *bool   `json:"passive-mode"`
		MinimumTTL *uint32 `json:"minimum-ttl"`
	}
	addressPoolSpec struct {
		Protocol      string   `json:"protocol"`
		Addresses     []string `json:"addresses"`
		AutoAssign    *bool    `json:"autoAssign"`
		AvoidBuggyIPs bool     `json:"avoidBuggyIPs"`
		BGP           []struct {
			Length4     *int32   `json:"aggregationLength"`
			Length6     *int32   `json:"aggregationLengthV6"`
			LocalPref   uint32   `json:"localPref"`
			Communities []string `json:"communities"`
		} `json:"bgpAdvertisements"`
	}
)

// isLegacyFile tells whether a document is what the ConfigMap has as its entry "config".
func isLegacyFile(document map[string]any) bool {
	if _, ok := document["kind"]; ok {
		return false
	}
	for _, key := range []string{"address-pools", "peers", "bgp-communities", "bfd-profiles"} {
		if _, ok := document[key]; ok {
			return true
		}
	}
	return false
}

func (c *conversion) convertConfigMap(o *unstructured.Unstructured) {
	entry := func(key string) string {
		text, _, _ := unstructured.NestedString(o.Object, "data", key)
		return text
	}
	text, document := entry("config"), map[string]any{}
	err := yaml.Unmarshal([]byte(text), &document)
	named := o.GetName() == "config" && (o.GetNamespace() == "" || o.GetNamespace() == c.namespace)
	switch name := o.GetName(); {
	case err == nil && isLegacyFile(document) && c.modern:
		c.note(o, "data.config", "is left out: since 0.13, MetalLB reads custom resources in its place, and there are some")
	case err == nil && isLegacyFile(document):
		c.convertFile(o, document)
	case err != nil && (named || strings.Contains(text, "address-pools")):
		c.lose(o, "data.config", "can't be read, and is left out: %v", err)
	case named && text != "":
		c.lose(o, "data.config", "is left out, because it has none of address-pools, peers, bgp-communities and bfd-profiles")
	case name == "bgpextras":
		c.lose(o, "data.extras", "is configuration of FRR, which Steelyard does not have: if a BGPPeer and a BGPAdvertisement can't say what it does, do it on the routers")
	case name == "metallb-excludel2":
		c.excludedInterfaces(o, entry("excludel2.yaml"))
	case name == "metallb-memberlist-config":
		c.note(o, "data", "is left out: Steelyard's speakers find out by themselves within a second that a node is gone")
	}
}

// excludedInterfaces tells of interfaces that MetalLB does not announce on; ours are a value of the chart.
func (c *conversion) excludedInterfaces(o *unstructured.Unstructured, text string) {
	var exclude struct {
		Patterns []string `json:"announcedInterfacesToExclude"`
	}
	if err := yaml.Unmarshal([]byte(text), &exclude); err != nil {
		c.lose(o, "data", "excludel2.yaml can't be read, and is left out: %v", err)
		return
	}
	standard := []string{"^docker.*", "^cbr.*", "^dummy.*", "^virbr.*", "^lxcbr.*", "^veth.*", "^lo$", "^cali.*", "^tunl.*", "^flannel.*",
		"^kube-ipvs.*", "^cni.*", "^nodelocaldns.*", "^lxc.*"}
	own := slices.DeleteFunc(exclude.Patterns, func(p string) bool { return slices.Contains(standard, p) })
	if len(own) == 0 {
		return // Steelyard leaves these out unasked
	}
	c.lose(o, "data", "interfaces are left out by a value of the chart, and a list there replaces the usual one: set speaker.excludeInterfaces to %s",
		strings.ReplaceAll(fmt.Sprintf("%q", slices.Concat(standard, own)), `" "`, `", "`))
}

func (c *conversion) convertAddressPool(o *unstructured.Unstructured) {
	var spec addressPoolSpec
	if !c.read(o, &spec) {
		return
	}
	p := legacyPool{Name: o.GetName(), Protocol: spec.Protocol, Addresses: spec.Addresses, AvoidBuggyIPs: spec.AvoidBuggyIPs, AutoAssign: spec.AutoAssign}
	for _, ad := range spec.BGP {
		p.BGP = append(p.BGP, legacyAd(ad))
	}
	c.addPool(o, p, c.meta(o).Labels, "spec")
}

func (c *conversion) convertFile(o *unstructured.Unstructured, document map[string]any) {
	var file legacyFile
	if !c.decode(o, "", document, &file) {
		return
	}
	for i, p := range file.Pools {
		c.addPool(o, p, nil, fmt.Sprintf("address-pools[%d]", i))
	}
	for i, p := range file.Peers {
		c.addPeer(o, p, fmt.Sprintf("peers[%d]", i))
	}
	for _, p := range file.BFDProfiles {
		add(c, o, &c.Resources.BFDProfiles, v1beta1.BFDProfile{
			TypeMeta: ours(config.KindBFDProfile), ObjectMeta: metav1.ObjectMeta{Name: p.Name},
			Spec: v1beta1.BFDProfileSpec{ReceiveInterval: p.Receive, TransmitInterval: p.Transmit, DetectMultiplier: p.Multiplier,
				EchoInterval: p.Echo, EchoMode: p.EchoMode, PassiveMode: p.Passive, MinimumTTL: p.MinimumTTL},
		})
	}
	if len(file.Communities) > 0 {
		community := v1beta1.Community{TypeMeta: ours(config.KindCommunity), ObjectMeta: metav1.ObjectMeta{Name: "communities"}}
		for _, name := range slices.Sorted(maps.Keys(file.Communities)) {
			community.Spec.Communities = append(community.Spec.Communities, v1beta1.CommunityAlias{Name: name, Value: file.Communities[name]})
		}
		add(c, o, &c.Resources.Communities, community)
	}
}

// addPool adds a pool and its advertisements.
func (c *conversion) addPool(o *unstructured.Unstructured, p legacyPool, labels map[string]string, field string) {
	if len(validation.IsDNS1123Subdomain(p.Name)) > 0 {
		c.lose(o, field, "the pool is left out, because %q can't be the name of an object: write one in lower case, with letters, digits, dashes and dots, "+
			"also where Services ask for it with the annotation address-pool", p.Name)
		return
	}
	had := len(c.Resources.Pools)
	add(c, o, &c.Resources.Pools, v1beta1.IPAddressPool{
		TypeMeta: ours(config.KindIPAddressPool), ObjectMeta: metav1.ObjectMeta{Name: p.Name, Labels: labels},
		Spec: v1beta1.IPAddressPoolSpec{Addresses: p.Addresses, AutoAssign: p.AutoAssign, AvoidBuggyIPs: p.AvoidBuggyIPs},
	})
	if len(c.Resources.Pools) == had {
		return
	}
	switch p.Protocol {
	case "layer2":
		ads := &c.Resources.L2Advertisements
		*ads = append(*ads, v1beta1.L2Advertisement{
			TypeMeta: ours(config.KindL2Advertisement), ObjectMeta: metav1.ObjectMeta{Name: unused(*ads, p.Name)},
			Spec: v1beta1.L2AdvertisementSpec{IPAddressPools: []string{p.Name}},
		})
	case "bgp":
		if len(p.BGP) == 0 {
			p.BGP = []legacyAd{{}} // single addresses, to all peers
		}
		for _, ad := range p.BGP {
			ads := &c.Resources.BGPAdvertisements
			*ads = append(*ads, v1beta1.BGPAdvertisement{
				TypeMeta: ours(config.KindBGPAdvertisement), ObjectMeta: metav1.ObjectMeta{Name: unused(*ads, p.Name)},
				Spec: v1beta1.BGPAdvertisementSpec{IPAddressPools: []string{p.Name}, AggregationLength: ad.Length4, AggregationLengthV6: ad.Length6,
					LocalPref: ad.LocalPref, Communities: ad.Communities},
			})
		}
	default:
		c.lose(o, field+".protocol", "%q is neither layer2 nor bgp, so the pool %s is not announced: write an L2Advertisement or a BGPAdvertisement for it",
			p.Protocol, p.Name)
	}
}

func (c *conversion) addPeer(o *unstructured.Unstructured, p legacyPeer, field string) {
	name := p.Name
	if name == "" {
		name = unused(c.Resources.BGPPeers, "peer")
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		c.lose(o, field, "the peer is left out, because %q can't be the name of an object: write one in lower case, with letters, digits, dashes and dots", name)
		return
	}
	peer := v1beta1.BGPPeer{TypeMeta: ours(config.KindBGPPeer), ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1beta1.BGPPeerSpec{
		MyASN: p.MyASN, PeerASN: p.PeerASN, PeerAddress: p.Address, SourceAddress: p.SourceAddress, PeerPort: p.Port, HoldTime: p.HoldTime,
		KeepaliveTime: p.KeepaliveTime, RouterID: p.RouterID, Password: p.Password, BFDProfile: p.BFDProfile, EBGPMultiHop: p.Multihop,
	}}
	for _, s := range p.Nodes {
		peer.Spec.NodeSelectors = append(peer.Spec.NodeSelectors, metav1.LabelSelector{MatchLabels: s.Labels, MatchExpressions: s.Expressions})
	}
	add(c, o, &c.Resources.BGPPeers, peer)
}

// unused returns the name, with a number if an object has it already.
func unused[T any, P interface {
	*T
	metav1.Object
}](objects []T, name string) string {
	free := name
	for n := 2; slices.ContainsFunc(objects, func(o T) bool { return P(&o).GetName() == free }); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}
