// Package ctl is steelyardctl: its commands read a snapshot of the cluster, ask pure packages, and print.
package ctl

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Streams are where the commands read and print.
type Streams = genericiooptions.IOStreams

// Exit codes.
const (
	exitFailed = 1 // the question could not be answered
	exitWrong  = 2 // the answer is that something is wrong
	exitLoss   = 3 // the answer is that something would be lost
)

// exitCode is the error of a command that has said all there is to say.
type exitCode int

func (exitCode) Error() string { return "" }

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string, streams Streams) int {
	name := filepath.Base(args[0])
	if strings.HasPrefix(name, "kubectl-") {
		name = "kubectl steelyard"
	}
	root := &cobra.Command{
		Use:           name,
		Short:         "Ask Steelyard why, what if, and how to move over from MetalLB",
		SilenceUsage:  true,
		SilenceErrors: true,
		// "kubectl steelyard" is two words, and cobra takes the first for the name.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: name},
	}
	o := &options{flags: genericclioptions.NewConfigFlags(true), streams: streams}
	o.flags.AddFlags(root.PersistentFlags())
	root.AddCommand(newExplain(o), newPools(o), newStatus(o), newPlan(o), newMigrate(o))
	root.SetArgs(args[1:])
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	root.PrintErrln("error:", err)
	return exitFailed
}
