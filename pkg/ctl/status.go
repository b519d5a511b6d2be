package ctl

import (
	"github.com/spf13/cobra"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/explain"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

func newStatus(o *options) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how Steelyard itself stands: controller, speakers, BGP sessions, configuration",
		Long: `Show how Steelyard itself stands: who leads among the controllers, which speakers are ready and whom they see, which BGP sessions are not up,
what is wrong with the configuration, and which Services wait for an address.

The exit code is 0 if all is well, 2 if something is wrong, and 1 if that could not be found out.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.snapshot(cmd.Context(), "")
			if err != nil {
				return err
			}
			says, err := ask[view.Speaker](cmd.Context(), o, s, view.SpeakerPath)
			if err != nil {
				return err
			}
			in := explain.Status(s, says)
			if err := o.print(out, in); err != nil {
				return err
			}
			switch {
			case len(in.Wrong) > 0:
				return exitCode(exitWrong)
			case !s.Knows(cluster.Pods):
				return exitCode(exitFailed)
			}
			return nil
		},
	}
	out.addTo(cmd)
	return cmd
}
