// Command steelyardctl explains what Steelyard does, plans what a change would do, and moves a cluster over from MetalLB. Installed as
// kubectl-steelyard it is `kubectl steelyard`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/steelyard-lb/steelyard/pkg/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(ctl.Run(ctx, os.Args, ctl.Streams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
}
