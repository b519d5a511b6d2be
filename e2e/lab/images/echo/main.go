// Echo answers on TCP and UDP with one line, "POD NODE CLIENT", and over HTTP with the same: who served, where, and
// whose address it saw. A TCP connection stays open and gets a line for each line that it sends.
//
// `echo resolve NAME` prints the addresses that the pod's own resolver knows for a name, one per line, sorted, and
// `echo ask NETWORK ADDRESS` the answer of an echo server.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	tcp := flag.String("tcp", ":7000", "address for TCP")
	udp := flag.String("udp", ":7000", "address for UDP")
	web := flag.String("http", ":8080", "address for HTTP")
	linger := flag.Duration("linger", 0, "how long to serve on after SIGTERM, as a program does that lets its clients finish")
	flag.Parse()
	switch flag.Arg(0) {
	case "resolve":
		resolve(flag.Arg(1))
		return
	case "ask":
		ask(flag.Arg(1), flag.Arg(2))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go serveTCP(*tcp)
	go serveUDP(*udp)
	go func() {
		log.Fatal(http.ListenAndServe(*web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, answer(r.RemoteAddr))
		})))
	}()
	<-ctx.Done()
	time.Sleep(*linger)
}

func resolve(name string) {
	addrs, err := net.LookupHost(name)
	if err != nil {
		log.Fatal(err)
	}
	slices.Sort(addrs)
	for _, a := range addrs {
		fmt.Println(a)
	}
}

func ask(network, address string) {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		log.Fatal(err)
	}
	if _, err := conn.Write([]byte("who\n")); err != nil {
		log.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(line)
}

func answer(client string) string {
	host, _, err := net.SplitHostPort(client)
	if err != nil {
		host = client
	}
	return fmt.Sprintf("%s %s %s\n", os.Getenv("POD_NAME"), os.Getenv("NODE_NAME"), host)
}

func serveTCP(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			line := answer(conn.RemoteAddr().String())
			for in := bufio.NewReader(conn); ; {
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
				if _, err := conn.Write([]byte(line)); err != nil {
					return
				}
			}
		}()
	}
}

func serveUDP(address string) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		log.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		_, from, err := conn.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := conn.WriteTo([]byte(answer(from.String())), from); err != nil {
			log.Print(err)
		}
	}
}
