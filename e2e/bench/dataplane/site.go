package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// site is a node between a client and a server, each a network namespace:
//
//	client 203.0.113.10 --- 203.0.113.1 node 10.244.0.1 --- server 10.244.0.2, 10.244.0.3
type site struct {
	client, node, server string
}

func newSite(name string) (*site, error) {
	s := &site{client: name + "-client", node: name, server: name + "-server"}
	for _, command := range []string{
		"netns add {client}", "netns add {node}", "netns add {server}",
		"-n {node} link add client type veth peer name eth0 netns {client}",
		"-n {node} link add server type veth peer name eth0 netns {server}",
		"-n {node} addr add " + nodeAddr + "/24 dev client", "-n {node} addr add " + podGateway + "/24 dev server",
		"-n {client} addr add " + clientAddr + "/24 dev eth0",
		"-n {server} addr add " + servers[0] + "/24 dev eth0", "-n {server} addr add " + servers[1] + "/24 dev eth0",
		"-n {node} link set lo up", "-n {node} link set client up", "-n {node} link set server up",
		"-n {client} link set eth0 up", "-n {server} link set eth0 up",
		"-n {client} route add default via " + nodeAddr, "-n {server} route add default via " + podGateway,
	} {
		command = strings.NewReplacer("{client}", s.client, "{node}", s.node, "{server}", s.server).Replace(command)
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w\n%s", command, err, out)
		}
	}
	sysctls := func(namespace string, values map[string]string) error {
		return in(namespace, func() error {
			for name, value := range values {
				if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := sysctls(s.client, map[string]string{"ipv4/ip_local_port_range": "1024 65535"}); err != nil {
		return nil, err
	}
	// Connections that were reset are forgotten soon, so that many of them don't fill the table.
	if err := sysctls(s.node, map[string]string{"ipv4/ip_forward": "1", "netfilter/nf_conntrack_tcp_timeout_close": "1"}); err != nil {
		return nil, err
	}
	return s, in(s.server, s.serve)
}

// in runs f on a thread in the network namespace. The thread ends with f, since it stays locked.
func in(namespace string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			file, err := os.Open("/run/netns/" + namespace)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", namespace, err)
			}
			return f()
		}()
	}()
	return <-done
}

// serve reads what clients send, and no more, until the process ends.
func (s *site) serve() error {
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", targetPort))
	if err != nil {
		return err
	}
	buffers := sync.Pool{New: func() any { return new([256 << 10]byte) }}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := buffers.Get().(*[256 << 10]byte)
				defer buffers.Put(buffer)
				for {
					if _, err := conn.Read(buffer[:]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}
