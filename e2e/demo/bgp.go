package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
	"github.com/steelyard-lb/steelyard/e2e/traffic"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

var quick = fixture.BFD{Name: "quick", Interval: 100, Multiplier: 3}

var bgp = quick.Manifest() + `---
apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: routed}
spec: {addresses: [198.18.0.0/24], autoAssign: false}
---
apiVersion: steelyard.io/v1beta1
kind: BGPPeer
metadata: {name: router}
spec: {myASN: 64500, peerASN: 64512, peerAddress: 192.0.2.1, bfdProfile: quick}
---
apiVersion: steelyard.io/v1beta1
kind: BGPAdvertisement
metadata: {name: routed}
spec: {ipAddressPools: [routed], communities: [no-export]}
---
apiVersion: v1
kind: Service
metadata:
  name: far
  annotations: {steelyard.io/address-pool: routed}
spec:
  type: LoadBalancer
  selector: {app: hello}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: echo, port: 7000}]
`

// sessionsUp succeeds once every node's session, BFD's too, is up and has told the router of the Service.
func (d *demo) sessionsUp(ctx context.Context) error {
	var sessions v1beta1.BGPSessionList
	if err := d.List(ctx, &sessions); err != nil {
		return err
	}
	for _, s := range sessions.Items {
		if s.Status.BFD == nil || s.Status.BFD.State != "Up" || s.Status.AnnouncedPrefixes == 0 {
			return fmt.Errorf("%s is %+v", s.Name, s.Status)
		}
	}
	return nil
}

// routers shows the same workload served to a host behind a real router, FRR, and a node's failure there.
func (d *demo) routers() error {
	say("Now BGP: the nodes peer with the router, FRR, which spreads connections from a host behind it over all of them.")
	r, err := d.StartRouter(d.ctx, quick.RouterConfig()+d.RouterConfig(quick.Neighbour()))
	if err != nil {
		return err
	}
	defer func() { _ = r.Stop(context.WithoutCancel(d.ctx)) }()
	command("kubectl apply -f - <<EOF")
	output(bgp + "EOF\n")
	if err := d.Apply(d.ctx, bgp); err != nil {
		return err
	}
	addrs, err := d.AwaitAddresses(d.ctx, "far", 1)
	if err != nil {
		return err
	}
	prefix := netip.PrefixFrom(addrs[0], 32)
	if err := d.AwaitNextHops(d.ctx, r, prefix, "node-1", "node-2", "node-3"); err != nil {
		return err
	}
	if err := d.WaitFor(d.ctx, "the sessions to be shown as they are", d.sessionsUp); err != nil {
		return err
	}
	if err := d.kubectl("get", "bgpsessions"); err != nil {
		return err
	}
	if err := d.kubectl("get", "serviceannouncements"); err != nil {
		return err
	}
	say("What the router has learned:")
	show := fmt.Sprintf("show bgp ipv4 unicast %s", prefix)
	command("vtysh -c '" + show + "'")
	out, err := r.Vtysh(d.ctx, show)
	if err != nil {
		return err
	}
	output(out)
	url := "http://" + net.JoinHostPort(addrs[0].String(), "80")
	say("The host behind the router is served:")
	command("curl " + url)
	if out, err = d.Host(cluster.Remote).Run(d.ctx, "curl", "-sS", "-m", "5", url); err != nil {
		return err
	}
	output(out)

	if err := d.Carried(d.ctx, addrs...); err != nil {
		return err
	}
	say("node-3 loses power, under a client behind the router that opens a connection every 20 ms. BFD, 3 x 100 ms, notices.")
	stream := traffic.Start(d.Host(cluster.Remote), net.JoinHostPort(addrs[0].String(), "7000"), 20*time.Millisecond)
	if err := d.WaitFor(d.ctx, "traffic before the failure", stream.Flows(time.Time{})); err != nil {
		return err
	}
	command("go run ./e2e/lab cut node-3")
	failure := time.Now()
	if err := d.Cut(d.ctx, "node-3"); err != nil {
		return err
	}
	if err := d.AwaitNextHops(d.ctx, r, prefix, "node-1", "node-2"); err != nil {
		return err
	}
	gone := time.Since(failure)
	if err := d.WaitFor(d.ctx, "traffic after the failure", stream.Flows(failure)); err != nil {
		return err
	}
	stream.Stop()
	if err := d.AwaitNextHops(d.ctx, r, prefix, "node-1", "node-2"); err != nil {
		return err
	}
	fmt.Printf("  The router sends nothing to node-3 any more, %d ms after the cable was cut.\n", gone.Milliseconds())
	command("ip route show " + prefix.String())
	if out, err = r.Host.Run(d.ctx, "ip", "route", "show", prefix.String()); err != nil {
		return err
	}
	output(out)
	return d.Mend(d.ctx, "node-3")
}
