package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machine is a host to be wired up.
type machine struct {
	name       string
	number     int  // last part of its addresses on the LAN
	second     bool // has eth1 on the second LAN
	forwarding bool
}

func (s *supervisor) machines() []machine {
	m := []machine{
		{name: Control, number: controlNumber},
		{name: Router, number: routerNumber, forwarding: true},
		{name: Client, number: clientNumber, second: true},
	}
	for i := 1; i <= s.Nodes; i++ {
		m = append(m, machine{name: NodeName(i), number: nodeNumber(i), second: true, forwarding: true})
	}
	return m
}

// wire makes the namespaces, bridges and cables. A host's cable to the LAN is the bridge port with the host's name in
// the supervisor's own namespace: taking it down is pulling the cable.
func (s *supervisor) wire() error {
	if err := ip("", "link set lo up", "link add lan type bridge", "link add lan2 type bridge",
		"link set lan up", "link set lan2 up"); err != nil {
		return err
	}
	// Bridged frames must not run through iptables; the files are there only when br_netfilter is.
	for _, f := range []string{"iptables", "ip6tables", "arptables"} {
		_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+f, []byte("0"), 0o644)
	}
	for _, m := range s.machines() {
		if err := addMachine(m); err != nil {
			return err
		}
	}
	if err := s.addRemote(); err != nil {
		return err
	}
	return s.routePods()
}

func addMachine(m machine) error {
	if err := addNamespace(m.name, m.forwarding); err != nil {
		return err
	}
	v4, v6 := lan(m.number)
	outside := []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", m.name, m.name),
		fmt.Sprintf("link set %s master lan up", m.name),
	}
	inside := []string{
		fmt.Sprintf("addr add %s/24 dev eth0", v4), fmt.Sprintf("addr add %s/64 dev eth0 nodad", v6), "link set eth0 up",
	}
	if m.second {
		outside = append(outside,
			fmt.Sprintf("link add %s-b type veth peer name eth1 netns %s", m.name, m.name),
			fmt.Sprintf("link set %s-b master lan2 up", m.name))
		inside = append(inside,
			fmt.Sprintf("addr add %s/24 dev eth1", in(Second4, m.number)), fmt.Sprintf("addr add %s/64 dev eth1 nodad", in(Second6, m.number)), "link set eth1 up")
	}
	if m.name != Router {
		gw4, gw6 := lan(routerNumber)
		inside = append(inside, fmt.Sprintf("route add default via %s", gw4), fmt.Sprintf("route add default via %s", gw6))
	}
	if err := ip("", outside...); err != nil {
		return err
	}
	return ip(m.name, inside...)
}

func (s *supervisor) addRemote() error {
	if err := addNamespace(Remote, false); err != nil {
		return err
	}
	if err := ip(Router, "link add eth1 type veth peer name eth0 netns "+Remote,
		fmt.Sprintf("addr add %s/24 dev eth1", in(WAN4, routerNumber)), fmt.Sprintf("addr add %s/64 dev eth1 nodad", in(WAN6, routerNumber)), "link set eth1 up"); err != nil {
		return err
	}
	return ip(Remote, fmt.Sprintf("addr add %s/24 dev eth0", in(WAN4, remoteNumber)), fmt.Sprintf("addr add %s/64 dev eth0 nodad", in(WAN6, remoteNumber)), "link set eth0 up",
		fmt.Sprintf("route add default via %s", in(WAN4, routerNumber)), fmt.Sprintf("route add default via %s", in(WAN6, routerNumber)))
}

// routePods gives every machine of the cluster a route to the pods of each other node.
func (s *supervisor) routePods() error {
	for _, m := range s.machines() {
		if m.name == Client {
			continue
		}
		var routes []string
		for i := 1; i <= s.Nodes; i++ {
			if m.name == NodeName(i) {
				continue
			}
			v4, v6 := lan(nodeNumber(i))
			routes = append(routes, fmt.Sprintf("route add %s via %s", podCIDR4(i), v4), fmt.Sprintf("route add %s via %s", podCIDR6(i), v6))
		}
		if err := ip(m.name, routes...); err != nil {
			return err
		}
	}
	return nil
}

func addNamespace(name string, forwarding bool) error {
	if err := ip("", "netns add "+name); err != nil {
		return err
	}
	settings := map[string]string{
		"net.ipv6.conf.all.accept_dad":     "0",
		"net.ipv6.conf.default.accept_dad": "0",
		"net.ipv4.conf.all.rp_filter":      "0",
		"net.ipv4.conf.default.rp_filter":  "0",
	}
	if name == Router {
		// Connections, and not only hosts, are spread over equal ways.
		settings["net.ipv4.fib_multipath_hash_policy"] = "1"
		settings["net.ipv6.fib_multipath_hash_policy"] = "1"
	}
	if name == Client {
		// Or Linux answers on one LAN for its address on the other.
		settings["net.ipv4.conf.all.arp_ignore"] = "1"
	}
	if forwarding {
		settings["net.ipv4.ip_forward"] = "1"
		settings["net.ipv6.conf.all.forwarding"] = "1"
	}
	var script strings.Builder
	for key, value := range settings {
		fmt.Fprintf(&script, "echo %s > /proc/sys/%s; ", value, strings.ReplaceAll(key, ".", "/"))
	}
	out, err := exec.Command("nsenter", "--net="+filepath.Join("/run/netns", name), "--", "sh", "-ec", script.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("sysctls of %s: %w: %s", name, err, out)
	}
	return ip(name, "link set lo up")
}

// ip runs a batch of ip(8) commands in a namespace, or in the supervisor's own.
func ip(namespace string, commands ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s(in %q)", strings.Join(args, " "), err, out, commands)
	}
	return nil
}
