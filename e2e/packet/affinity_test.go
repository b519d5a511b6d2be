package packet

import (
	"fmt"
	"net/netip"
	"time"
)

// Session affinity by the client's address.
var affinity = []entry{
	{number: 19, name: "a client stays while it comes back in time", run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), sticky(8))
		s.endpoints("web", on("pA1"), on("pB1"), on("pC1"))
		s.via(s.vip(1), "n1")
		web := tcp(s.vip(1), 80)
		first := s.clients(20, web)
		for range 3 {
			time.Sleep(4 * time.Second) // 12 s in all: longer than the timeout, so only new connections can have kept them
			for client, by := range s.clients(20, web) {
				if by != first[client] {
					s.Errorf("client %s went from %s to %s", client, first[client], by)
				}
			}
		}
		time.Sleep(9 * time.Second) // that is what the timeout is about
		moved := 0
		for client, by := range s.clients(20, web) {
			if by != first[client] {
				moved++
			}
		}
		if moved == 0 { // once in 3^20 runs by chance
			s.Error("after the timeout all clients are where they were")
		}
	}},
	{number: 20, name: "300 clients stay", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), sticky(600))
		s.endpoints("web", on("pA1"), on("pB1"), on("pC1"))
		s.via(s.vip(1), "n1")
		first := s.clients(300, tcp(s.vip(1), 80))
		used := map[string]int{}
		for client, by := range s.clients(300, tcp(s.vip(1), 80)) {
			used[by]++
			if by != first[client] {
				s.Errorf("client %s went from %s to %s", client, first[client], by)
			}
		}
		if len(used) != 3 {
			s.Errorf("300 clients use %v", used)
		}
	}},
	{number: 21, name: "the endpoint leaves and its client goes elsewhere at once", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)), sticky(600))
		s.endpoints("web", on("pB1"), on("pC1"))
		web := tcp(s.vip(1), 80)
		by := s.serves("pA1", web, "", "pB1", "pC1")
		other := map[string]string{"pB1": "pC1", "pC1": "pB1"}[by]
		s.endpoints("web", on(other))
		for range 15 {
			s.serves("pA1", web, "", other)
		}
		s.endpoints("web", on("pB1"), on("pC1"))
		for range 15 {
			s.serves("pA1", web, "", other)
		}
	}},
	{number: 22, name: "affinity is turned on and off while clients come", balancer: true, run: func(s *scenario) {
		s.service("web", balanced(s.vip(1)))
		s.endpoints("web", on("pB1"), on("pC1"))
		web := tcp(s.vip(1), 80)
		for range 2 {
			if got := s.spread("pA1", web, 40); len(got) != 2 {
				s.Errorf("without affinity: %v", got)
			}
			s.service("web", sticky(600))
			if got := s.spread("pA1", web, 15); len(got) != 1 {
				s.Errorf("with affinity: %v", got)
			}
			s.service("web", sticky(0))
		}
	}},
}

// clients makes a connection from each of n addresses of the client and returns who answered which.
func (s *scenario) clients(n int, to target) map[netip.Addr]string {
	s.Helper()
	by := map[netip.Addr]string{}
	for i := range n {
		client := at("10.99.%[1]d.%[2]d", "fd99::%[1]d:%[2]d", i/200, i%200+1).in(s.v6)
		o := s.tryAs("cl", client, to, patience)
		if o.err != nil {
			s.Fatal(fmt.Errorf("client %s: %s", client, o))
		}
		by[client] = o.by
	}
	return by
}
