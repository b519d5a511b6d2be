package packet

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/steelyard-lb/steelyard/pkg/dataplane"
)

// UDP flows have no end that the kernel could see: it keeps them to where they went first until somebody makes it forget them.
var flows = []entry{
	{number: 1, name: "a UDP flow follows its endpoint's replacement", balancer: true, run: func(s *scenario) {
		s.service("dns", overUDP, balanced(s.vip(1)))
		s.endpoints("dns", on("pB1"))
		s.via(s.vip(1), "n1")
		for _, f := range udpPaths(s) {
			f.answeredBy("pB1")
			defer f.answeredBy("pC1")
		}
		s.endpoints("dns", on("pC1"))
		s.sync()
	}},
	{number: 2, name: "a UDP flow that began without endpoints gets the first", balancer: true, run: func(s *scenario) {
		s.service("dns", overUDP, balanced(s.vip(1)))
		s.via(s.vip(1), "n1")
		s.sync()
		for _, f := range udpPaths(s) {
			for range 3 {
				if o := ask(f.conn, 1, 0); o.err == nil {
					s.Errorf("nobody serves, but %s", o)
				}
			}
			defer f.answeredBy("pB1")
		}
		s.endpoints("dns", on("pB1"))
		s.sync()
	}},
	{number: 3, name: "one-way UDP stops when the Service is scaled to zero", balancer: true, run: func(s *scenario) {
		s.service("log", ports(portOf("log", "UDP", 514, 5140)), balanced(s.vip(1)))
		s.endpoints("log", on("pB1"))
		s.oneWay("pB1", 5140, udp(s.vip(1), 514), func() { s.endpoints("log") })
	}},
	{number: 4, name: "UDP stops when the Service is deleted", balancer: true, run: func(s *scenario) {
		s.service("log", ports(portOf("log", "UDP", 514, 5140)), balanced(s.vip(1)))
		s.endpoints("log", on("pB1"))
		s.oneWay("pB1", 5140, udp(s.vip(1), 514), func() {
			s.deleteService("log")
			s.deleteSlice("log-1")
		})
	}},
	{number: 24, name: "large datagrams pass a node port to another node both ways", run: func(s *scenario) {
		s.service("dns", overUDP, onNodePort(30053))
		s.endpoints("dns", on("pB1"))
		s.sync()
		o := s.hosts["cl"].udp(netip.AddrPort{}, netip.AddrPortFrom(s.addr("n1"), 30053), 8000, patience)
		if err := s.judge(o, "n1", "pB1"); err != nil {
			s.Error(err)
		}
	}},
	{number: 60, name: "a change among 20000 flows ends the stale ones only", run: staleOnly},
}

// udpFlow is a client that keeps its source port.
type udpFlow struct {
	s    *scenario
	name string
	conn net.Conn
}

func (s *scenario) udpFlow(from string, to netip.AddrPort) udpFlow {
	s.Helper()
	c, err := s.hosts[from].dial("udp", netip.AddrPort{}, to, patience)
	s.must(err)
	s.Cleanup(func() { c.Close() })
	return udpFlow{s, fmt.Sprintf("flow from %s to %s", from, to), c}
}

// answeredBy waits until a pod answers the flow.
func (f udpFlow) answeredBy(pod string) {
	f.s.Helper()
	f.s.sync()
	f.s.eventually(f.name+" is answered by "+pod, func() error {
		if o := ask(f.conn, 1, 0); o.by != pod {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
}

// udpPaths are flows to the Service dns by all ways that the mode has.
func udpPaths(s *scenario) []udpFlow {
	list := []udpFlow{s.udpFlow("cl", netip.AddrPortFrom(s.vip(1), 80)), s.udpFlow("pA1", netip.AddrPortFrom(s.vip(1), 80))}
	if s.Mode == dataplane.Full {
		list = append(list, s.udpFlow("pA1", netip.AddrPortFrom(s.clusterIP("dns"), 80)), s.udpFlow("n1", netip.AddrPortFrom(s.clusterIP("dns"), 80)))
	}
	return list
}

// oneWay has a pod send datagrams that nobody answers, and checks that none arrive soon after the end.
func (s *scenario) oneWay(pod string, port uint16, to target, end func()) {
	s.Helper()
	var sink net.PacketConn
	s.must(s.hosts[pod].do(func() (err error) {
		sink, err = net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
		return err
	}))
	defer sink.Close()
	var received atomic.Int64
	go func() {
		for buf := make([]byte, 100); ; received.Add(1) {
			if _, _, err := sink.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	s.sync()
	c, err := s.hosts["pA1"].dial("udp", netip.AddrPort{}, to.AddrPort, patience)
	s.must(err)
	defer c.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.Write([]byte("one way"))
			}
		}
	}()
	s.eventually("datagrams arrive", func() error {
		if received.Load() < 10 {
			return fmt.Errorf("%d arrived", received.Load())
		}
		return nil
	})
	end()
	s.sync()
	s.eventually("no more datagrams arrive", func() error {
		before := received.Load()
		time.Sleep(300 * time.Millisecond)
		if n := received.Load() - before; n > 0 {
			return fmt.Errorf("%d arrived in 300 ms", n)
		}
		return nil
	})
}

func staleOnly(s *scenario) {
	family := netlink.InetFamily(unix.AF_INET)
	if s.v6 {
		family = unix.AF_INET6
	}
	s.service("dns", overUDP, onNodePort(30053))
	s.endpoints("dns", on("pB1"), on("pC1"))
	s.sync()
	h := s.hosts["n1"].links
	insert := func(proto uint8, to netip.AddrPort, by string, port uint16) {
		s.Helper()
		client := netip.AddrPortFrom(s.addr("pA1"), port)
		f := &netlink.ConntrackFlow{
			FamilyType: uint8(family), TimeOut: 600,
			Forward: netlink.IPTuple{Protocol: proto, SrcIP: client.Addr().AsSlice(), SrcPort: port, DstIP: to.Addr().AsSlice(), DstPort: to.Port()},
			Reverse: netlink.IPTuple{Protocol: proto, SrcIP: s.addr(by).AsSlice(), SrcPort: 8080, DstIP: client.Addr().AsSlice(), DstPort: port},
		}
		if proto == unix.IPPROTO_TCP {
			f.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
		}
		s.must(h.ConntrackCreate(netlink.ConntrackTable, family, f))
	}
	vip := netip.AddrPortFrom(s.clusterIP("dns"), 80)
	for i := range 20000 {
		by := "pB1"
		if i%100 == 0 {
			by = "pC1"
		}
		insert(unix.IPPROTO_UDP, vip, by, uint16(10000+i))
	}
	insert(unix.IPPROTO_TCP, vip, "pC1", 5000)
	insert(unix.IPPROTO_UDP, netip.AddrPortFrom(s.addr("cl"), 30053), "cl", 5001)
	insert(unix.IPPROTO_SCTP, vip, "pC1", 5002)
	s.endpoints("dns", on("pB1"))
	s.sync()
	s.eventually("20000 - 200 flows and the three that are none of it remain", func() error {
		list, err := h.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			return err
		}
		var good, stale int
		others := map[string]bool{}
		for _, f := range list {
			by, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
			switch {
			case f.Forward.Protocol != unix.IPPROTO_UDP, f.Forward.DstPort == 30053:
				others[fmt.Sprint(f.Forward.Protocol)] = true
			case by.Unmap() == s.addr("pB1"):
				good++
			default:
				stale++
			}
		}
		if good != 19800 || stale != 0 || len(others) != 3 {
			return fmt.Errorf("%d good flows, %d stale ones, others: %s", good, stale, strings.Join(slices.Sorted(maps.Keys(others)), " "))
		}
		return nil
	})
}
