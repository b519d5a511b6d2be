package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/migrate"
)

func newMigrate(o *options) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "migrate [-f FILE|DIRECTORY|-]... [-n NAMESPACE]",
		Short: "Print MetalLB's configuration as Steelyard's",
		Long: `Print MetalLB's configuration as Steelyard's: pools, advertisements, peers, BFD profiles and communities, of MetalLB's custom resources and of
the ConfigMap that was before them. Nothing is written to the cluster.

The configuration is that of the cluster, in the namespace metallb-system unless -n names another, or else that of the files; these may have
Services, too. What can't be carried over, and which Services would not keep their addresses, is listed on the standard error.

The exit code is 0 if all is carried over, 3 if something is not or is left to do, and 1 if that could not be found out.`,
		Example: `  # From the cluster
  steelyardctl migrate > steelyard.yaml

  # From what is under version control
  steelyardctl migrate -f metallb/ > steelyard.yaml

  # From a cluster that has neither MetalLB nor Steelyard any more, kept as a file
  kubectl get ipaddresspools.metallb.io,l2advertisements.metallb.io,services,namespaces -A -o yaml | steelyardctl migrate -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace := cmp.Or(*o.flags.Namespace, "metallb-system")
			read := o.metallbOfFiles
			if len(files) == 0 {
				read = func([]string) ([]unstructured.Unstructured, *cluster.Snapshot, error) {
					return o.metallbOfCluster(cmd.Context(), namespace)
				}
			}
			objects, before, err := read(files)
			if err != nil {
				return err
			}
			result, err := migrate.Convert(objects, before, namespace, metav1.Now())
			if err != nil {
				return err
			}
			switch nothing := len(result.Objects())+len(result.Notes) == 0; {
			case nothing && len(files) > 0:
				return errors.New("there is no configuration of MetalLB in the files")
			case nothing:
				return fmt.Errorf("there is no configuration of MetalLB in namespace %s: name its namespace with -n, or files with -f", namespace)
			}
			return o.printMigration(result, before)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "a file, a directory, or - for the standard input, in place of the cluster; may be repeated")
	return cmd
}

func (o *options) printMigration(result *migrate.Result, before *cluster.Snapshot) error {
	text, err := result.YAML()
	if err != nil {
		return err
	}
	if _, err := o.streams.Out.Write(text); err != nil {
		return err
	}
	for _, part := range []struct {
		title string
		lost  bool
	}{{"Not carried over, or left to do:", true}, {"Good to know:", false}} {
		title := part.title + "\n"
		for _, n := range result.Notes {
			if n.Lost == part.lost {
				fmt.Fprintf(o.streams.ErrOut, "%s    %s\n", title, n)
				title = ""
			}
		}
	}
	if before.Knows(cluster.Services) && len(before.Services) > 0 {
		fmt.Fprintf(o.streams.ErrOut, "Services that keep all of their addresses: %d\n", result.Kept)
	} else {
		fmt.Fprintln(o.streams.ErrOut, "Whether Services keep their addresses was not looked at, because none are known here: ask `steelyardctl plan -f` of what is printed")
	}
	if result.Lost() {
		return exitCode(exitLoss)
	}
	return nil
}

// metallbOfFiles returns MetalLB's objects, and the Services and Namespaces, that are in the files.
func (o *options) metallbOfFiles(files []string) ([]unstructured.Unstructured, *cluster.Snapshot, error) {
	objects, err := readObjects(files, o.streams.In)
	if err != nil {
		return nil, nil, err
	}
	snapshot := &cluster.Snapshot{}
	for i := range objects {
		var into client.Object
		switch objects[i].GroupVersionKind() {
		case corev1.SchemeGroupVersion.WithKind("Service"):
			into = &corev1.Service{}
		case corev1.SchemeGroupVersion.WithKind("Namespace"):
			into = &corev1.Namespace{}
		default:
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(objects[i].Object, into); err != nil {
			return nil, nil, fmt.Errorf("%s %q: %w", objects[i].GetKind(), objects[i].GetName(), err)
		}
		if err := snapshot.Put(into); err != nil {
			return nil, nil, err
		}
	}
	if len(snapshot.Namespaces) == 0 {
		snapshot.Gaps = []cluster.Gap{{Resource: cluster.Namespaces, Why: "add them to the files (kubectl get namespaces -o yaml), or leave the Services out"}}
	}
	return objects, snapshot, nil
}

// metallbKinds are those that MetalLB has or had, each in the version to read.
var metallbKinds = []schema.GroupVersionKind{
	{Group: "metallb.io", Version: "v1beta1", Kind: "IPAddressPool"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "L2Advertisement"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "BGPAdvertisement"},
	{Group: "metallb.io", Version: "v1beta2", Kind: "BGPPeer"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "BFDProfile"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "Community"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "AddressPool"},
	{Group: "metallb.io", Version: "v1beta1", Kind: "MetalLB"},
	{Group: "frrk8s.metallb.io", Version: "v1beta1", Kind: "FRRConfiguration"},
	{Version: "v1", Kind: "ConfigMap"},
}

// metallbOfCluster returns MetalLB's objects in its namespace, and the cluster.
func (o *options) metallbOfCluster(ctx context.Context, namespace string) ([]unstructured.Unstructured, *cluster.Snapshot, error) {
	reader, err := o.client()
	if err != nil {
		return nil, nil, err
	}
	var objects []unstructured.Unstructured
	for _, gvk := range metallbKinds {
		within := namespace
		if gvk.Kind == "FRRConfiguration" {
			within = "" // those of others are where FRR runs
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := reader.List(ctx, list, client.InNamespace(within))
		if gvk.Kind == "BGPPeer" && meta.IsNoMatchError(err) {
			list.SetGroupVersionKind(schema.GroupVersionKind{Group: gvk.Group, Version: "v1beta1", Kind: gvk.Kind + "List"})
			err = reader.List(ctx, list, client.InNamespace(namespace))
		}
		switch {
		case meta.IsNoMatchError(err), apierrors.IsNotFound(err): // another version of MetalLB
		case err != nil:
			return nil, nil, fmt.Errorf("list MetalLB's objects of kind %s in namespace %s: %w", gvk.Kind, cmp.Or(within, "any"), err)
		}
		objects = append(objects, list.Items...)
	}
	snapshot, err := cluster.Read(ctx, reader, "")
	return objects, snapshot, err
}
