package ctl

import (
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/explain"
	"github.com/steelyard-lb/steelyard/pkg/view"
)

func newExplain(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say how something stands and what is wrong with it",
	}
	cmd.AddCommand(newExplainService(o))
	return cmd
}

func newExplainService(o *options) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "service NAME",
		Aliases: []string{"svc", "services"},
		Short:   "Say whether a Service works, who announces it, and what to mend first if it does not",
		Long: `Say whether a Service of type LoadBalancer works: its addresses and their pool, which node announces them on which interface or to which
routers, why other nodes don't, which nodes have endpoints, and on how many nodes the rules are in the kernel. What is wrong comes first, with
what to do about it.

The exit code is 0 if the Service works, 2 if something is wrong, and 1 if that could not be found out.`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return o.serviceNames(cmd, args), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.explainService(cmd, args[0], out) },
	}
	out.addTo(cmd)
	return cmd
}

func (o *options) explainService(cmd *cobra.Command, name string, out output) error {
	ctx := cmd.Context()
	namespace, err := o.namespace()
	if err != nil {
		return err
	}
	s, err := o.snapshot(ctx, namespace)
	if err != nil {
		return err
	}
	if !s.Knows(cluster.Services) {
		return fmt.Errorf("you may not list the Services of namespace %s: ask for that right", namespace)
	}
	views, err := ask[view.Service](ctx, o, s, view.ServicePath+namespace+"/"+name)
	if err != nil {
		return err
	}
	e, ok := explain.Service(s, namespace, name, views)
	if !ok {
		return fmt.Errorf("there is no Service %s in namespace %s: name another one, or its namespace with -n", name, namespace)
	}
	if err := o.print(out, e); err != nil {
		return err
	}
	switch e.Verdict {
	case explain.Works:
		return nil
	case explain.Unknown:
		return exitCode(exitFailed)
	}
	return exitCode(exitWrong)
}

// serviceNames are for the shell to complete.
func (o *options) serviceNames(cmd *cobra.Command, args []string) []string {
	namespace, err := o.namespace()
	if err != nil || len(args) > 0 {
		return nil
	}
	reader, err := o.client()
	if err != nil {
		return nil
	}
	var services corev1.ServiceList
	if err := reader.List(cmd.Context(), &services, client.InNamespace(namespace)); err != nil {
		return nil
	}
	var names []string
	for i := range services.Items {
		if services.Items[i].Spec.Type == corev1.ServiceTypeLoadBalancer {
			names = append(names, services.Items[i].Name)
		}
	}
	return names
}
