package main

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const mistaken = `apiVersion: v1
kind: Service
metadata:
  name: mistaken
  annotations: {steelyard.io/address-pool: dmeo}
spec:
  type: LoadBalancer
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080}]
`

const narrower = `apiVersion: steelyard.io/v1beta1
kind: IPAddressPool
metadata: {name: demo}
spec: {addresses: [192.0.2.105-192.0.2.109, 2001:db8:1::100-2001:db8:1::109]}
`

// why shows that there is an answer to "why" and to "what if".
func (d *demo) why() error {
	say("Why does it work, and why does another not? A Service that asks for a pool that does not exist:")
	command("kubectl apply -f - <<EOF")
	output(mistaken + "EOF\n")
	if err := d.Apply(d.ctx, mistaken); err != nil {
		return err
	}
	if err := d.WaitFor(d.ctx, "the controller to have looked at it", func(ctx context.Context) error {
		var s corev1.Service
		if err := d.Get(ctx, client.ObjectKey{Namespace: "default", Name: "mistaken"}, &s); err != nil {
			return err
		}
		for _, c := range s.Status.Conditions {
			if c.Type == v1beta1.ConditionAddressAssigned {
				return nil
			}
		}
		return fmt.Errorf("it has no condition")
	}); err != nil {
		return err
	}
	if err := d.steelyardctl(2, "explain", "service", "mistaken"); err != nil {
		return err
	}
	if err := d.Remove(d.ctx, mistaken); err != nil {
		return err
	}
	if err := d.steelyardctl(0, "explain", "service", "hello"); err != nil {
		return err
	}
	say("And what if? A narrower pool would take the address away; the exit code is for a pipeline to stop at.")
	output(narrower)
	return fixture.WithFile(narrower, func(path string) error { return d.steelyardctl(3, "plan", "-f", path) })
}

// steelyardctl runs a command, which has to end with this exit code, and shows both it and what it printed.
func (d *demo) steelyardctl(code int, args ...string) error {
	command("steelyardctl " + strings.Join(args, " "))
	out, err := d.Ctl(d.ctx, args...)
	if err != nil {
		return err
	}
	output(out.Stdout)
	if out.Code != code {
		return fmt.Errorf("steelyardctl ended with %d, not %d: %s", out.Code, code, out.Stderr)
	}
	return nil
}
