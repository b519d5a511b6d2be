package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/explain"
)

func newPools(o *options) *cobra.Command {
	var out output
	var services bool
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "Show the pools: how many addresses are in use and free, and who has which",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.snapshot(cmd.Context(), "")
			if err != nil {
				return err
			}
			if !s.Knows(cluster.IPAddressPools) {
				return fmt.Errorf("%s: %s", cluster.IPAddressPools, why(s, cluster.IPAddressPools))
			}
			return o.print(out, explain.PoolsOf(s, services))
		},
	}
	out.addTo(cmd)
	cmd.Flags().BoolVar(&services, "services", false, "list the addresses in use, the Services that have them, and reserved addresses")
	return cmd
}

// why returns why the resource is not known.
func why(s *cluster.Snapshot, resource string) string {
	for _, gap := range s.Gaps {
		if gap.Resource == resource {
			return gap.Why
		}
	}
	return ""
}
