// Package ctl is steelyardctl: its commands read a snapshot of the cluster, ask pure packages, and print.
package ctl

import (
	"context"
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
	exitFailed = 1
)

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string, streams Streams) int {
	name := filepath.Base(args[0])
	if strings.HasPrefix(name, "kubectl-") {
		name = "kubectl steelyard"
	}
	flags := genericclioptions.NewConfigFlags(true)
	root := &cobra.Command{
		Use:           name,
		Short:         "Ask Steelyard why, what if, and how to move over from MetalLB",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags.AddFlags(root.PersistentFlags())
	root.SetArgs(args[1:])
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	if err := root.ExecuteContext(ctx); err != nil {
		root.PrintErrln("error:", err)
		return exitFailed
	}
	return 0
}
