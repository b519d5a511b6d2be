package v1beta1

// AddressRanges are ranges of addresses, each a CIDR or the first and the last address with a dash between them.
//
// CEL has no order on addresses. So the last rule looks for the prefix length n at which the two addresses are still in one
// network and at n+1 are not, and demands that the first address has a 0 in the bit between: then both lengths leave it the same
// network. It finds the group of 16 bits first, for CEL's cost budget; t holds the lengths, 4 characters each, because the
// estimated cost of a number made text is unbounded. IPv4 is looked at as the tail of an IPv6 address.
//
// +kubebuilder:validation:items:MaxLength=100
// +kubebuilder:validation:items:XValidation:rule="self.contains('-') || isCIDR(self.trim())",messageExpression="isIP(self.trim()) ? self.trim() + ' is a single address: write ' + self.trim() + (ip(self.trim()).family() == 4 ? '/32' : '/128') : '\"' + self + '\" is no range of addresses: write a CIDR such as 192.0.2.0/24, or the first and the last address such as 192.0.2.10-192.0.2.20'",message="is no range of addresses"
// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || (isIP(self.substring(0, self.indexOf('-')).trim()) && isIP(self.substring(self.indexOf('-') + 1).trim()))",messageExpression="'\"' + self + '\" does not name two addresses: write both in full, such as 192.0.2.10-192.0.2.20 or 2001:db8::10-2001:db8::20'",message="does not name two addresses"
// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || [self.substring(0, self.indexOf('-')).trim()].all(a, [self.substring(self.indexOf('-') + 1).trim()].all(b, !isIP(a) || !isIP(b) || ip(a).family() == ip(b).family()))",messageExpression="'\"' + self + '\" mixes IPv4 and IPv6: write one range for each family'",message="mixes IPv4 and IPv6"
// +kubebuilder:validation:items:XValidation:rule="!self.contains('-') || [self.substring(0, self.indexOf('-')).trim()].all(a, [self.substring(self.indexOf('-') + 1).trim()].all(b, !isIP(a) || !isIP(b) || ip(a).family() != ip(b).family() || ip(a) == ip(b) || ['/0  /1  /2  /3  /4  /5  /6  /7  /8  /9  /10 /11 /12 /13 /14 /15 /16 /17 /18 /19 /20 /21 /22 /23 /24 /25 /26 /27 /28 /29 /30 /31 /32 /33 /34 /35 /36 /37 /38 /39 /40 /41 /42 /43 /44 /45 /46 /47 /48 /49 /50 /51 /52 /53 /54 /55 /56 /57 /58 /59 /60 /61 /62 /63 /64 /65 /66 /67 /68 /69 /70 /71 /72 /73 /74 /75 /76 /77 /78 /79 /80 /81 /82 /83 /84 /85 /86 /87 /88 /89 /90 /91 /92 /93 /94 /95 /96 /97 /98 /99 /100/101/102/103/104/105/106/107/108/109/110/111/112/113/114/115/116/117/118/119/120/121/122/123/124/125/126/127/128'].all(t, [(ip(a).family() == 4 ? '1::' : \"\") + a].all(x, [ip((ip(a).family() == 4 ? '1::' : \"\") + b)].all(y, [[0, 64, 128, 192, 256, 320, 384, 448].filter(o, cidr(x + t.substring(o, o + 4).trim()).containsIP(y) && !cidr(x + t.substring(o + 64, o + 64 + 4).trim()).containsIP(y))[0]].all(g, [g, g + 4, g + 8, g + 12, g + 16, g + 20, g + 24, g + 28, g + 32, g + 36, g + 40, g + 44, g + 48, g + 52, g + 56, g + 60].exists(o, [cidr(x + t.substring(o, o + 4).trim())].all(n, [cidr(x + t.substring(o + 4, o + 4 + 4).trim())].all(m, n.containsIP(y) && !m.containsIP(y) && n.masked().ip() == m.masked().ip())))))))))",messageExpression="'\"' + self + '\" runs backwards: write ' + self.substring(self.indexOf('-') + 1).trim() + '-' + self.substring(0, self.indexOf('-')).trim()",message="runs backwards"
type AddressRanges []string

// NamespaceNames are names of namespaces.
//
// +listType=set
// +kubebuilder:validation:items:MaxLength=253
// +kubebuilder:validation:items:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",messageExpression="'\"' + self + '\" is no name of a namespace: write it in lower case, with letters, digits and dashes, 63 at most'",message="is no name of a namespace"
type NamespaceNames []string
