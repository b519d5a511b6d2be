package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/cluster"
	"github.com/steelyard-lb/steelyard/pkg/plan"
)

func newPlan(o *options) *cobra.Command {
	var files, deletions []string
	var prune bool
	var out output
	cmd := &cobra.Command{
		Use:   "plan [-f FILE|DIRECTORY|-]... [--delete KIND/NAME]...",
		Short: "Say what a change of pools, advertisements or peers would do, before it is made",
		Long: `Say what a change of pools, advertisements or peers would do, before it is made: which Services keep, move, lose or get an address, and
who announces them then. Nothing is written.

Objects in the files are created, or replace those of their kind and name, as kubectl replace does. The plan is for all of that at once, so
apply what adds addresses before what takes them away.

The exit code is 0 if no Service loses anything, 3 if one loses or moves an address or is announced by nobody any more, and 1 if that
could not be found out.`,
		Example: `  # What does this pool change?
  steelyardctl plan -f pool.yaml

  # The directory is all that is configured: what it does not have is deleted.
  steelyardctl plan -f config/ --prune

  # What if a router goes?
  steelyardctl plan --delete BGPPeer/tor-a`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := readObjects(files, o.streams.In)
			if err != nil {
				return err
			}
			edit, err := editOf(objects, deletions, prune)
			if err != nil {
				return err
			}
			for _, stranger := range edit.strangers {
				fmt.Fprintf(o.streams.ErrOut, "left out, because it does not configure Steelyard: %s\n", stranger)
			}
			before, err := o.snapshot(cmd.Context(), "")
			if err != nil {
				return err
			}
			for _, gap := range before.Gaps {
				if slices.Contains(decisive, gap.Resource) {
					return fmt.Errorf("there is no plan without %s: %s", gap.Resource, gap.Why)
				}
			}
			after, err := edit.Apply(before, metav1.Now())
			if err != nil {
				return err
			}
			p := plan.New(before, after)
			if err := o.print(out, p); err != nil {
				return err
			}
			if p.Harms() {
				return exitCode(exitLoss)
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "a file, a directory, or - for the standard input; may be repeated")
	cmd.Flags().StringArrayVar(&deletions, "delete", nil, "an object that is deleted, such as IPAddressPool/old; may be repeated")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete all that configures Steelyard and is not in the files")
	out.addTo(cmd)
	return cmd
}

// decisive are the resources that decide who has which address.
var decisive = []string{cluster.Services, cluster.Namespaces, cluster.IPAddressPools, cluster.AddressReservations}

// edit is a change, and what of the files is none.
type edit struct {
	plan.Edit
	strangers []string
}

func editOf(objects []unstructured.Unstructured, deletions []string, prune bool) (*edit, error) {
	e := &edit{Edit: plan.Edit{Prune: prune}}
	decoder := serializer.NewCodecFactory(cluster.Scheme(), serializer.EnableStrict).UniversalDeserializer()
	for i := range objects {
		u := &objects[i]
		gv := u.GroupVersionKind().GroupVersion()
		if u.GetKind() == "" {
			return nil, fmt.Errorf("a document has no kind, only %s, so it is no object: render what it is for with kubectl kustomize or helm template, and plan that with -f -",
				strings.Join(slices.Sorted(maps.Keys(u.Object)), ", "))
		}
		if gv.Group != v1beta1.GroupVersion.Group {
			e.strangers = append(e.strangers, fmt.Sprintf("%s %q", u.GetKind(), u.GetName()))
			continue
		}
		if gv != v1beta1.GroupVersion {
			return nil, fmt.Errorf("%s %q: apiVersion is %s: write %s", u.GetKind(), u.GetName(), gv, v1beta1.GroupVersion)
		}
		text, err := json.Marshal(u)
		if err != nil {
			return nil, err
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", u.GetKind(), u.GetName(), err)
		}
		e.Put = append(e.Put, object.(client.Object))
	}
	for _, text := range deletions {
		ref, err := refOf(text)
		if err != nil {
			return nil, err
		}
		e.Delete = append(e.Delete, ref)
	}
	if len(e.Put)+len(e.Delete) == 0 {
		return nil, errors.New("there is no change to plan: give objects of Steelyard with -f, or name one with --delete")
	}
	return e, nil
}

// refOf reads KIND/NAME; the kind may be in any case, and in the plural, as kubectl has it.
func refOf(text string) (plan.Ref, error) {
	kind, name, _ := strings.Cut(text, "/")
	for _, known := range plan.Kinds() {
		plural := known + "s"
		if base, ok := strings.CutSuffix(known, "y"); ok {
			plural = base + "ies"
		}
		if name != "" && (strings.EqualFold(kind, known) || strings.EqualFold(kind, plural)) {
			return plan.Ref{Kind: known, Name: name}, nil
		}
	}
	return plan.Ref{}, fmt.Errorf("--delete %s is not understood: write KIND/NAME, where KIND is one of %s", text, strings.Join(plan.Kinds(), ", "))
}
