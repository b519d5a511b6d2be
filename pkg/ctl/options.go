package ctl

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/steelyard-lb/steelyard/pkg/cluster"
)

// options are what all commands share: how to reach the cluster, and where to print.
type options struct {
	flags   *genericclioptions.ConfigFlags
	streams Streams
}

func (o *options) config() (*rest.Config, error) {
	cfg, err := o.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	cfg.QPS = -1 // a person waits; the API server has limits of its own
	return cfg, nil
}

func (o *options) client() (client.Client, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	return client.New(cfg, client.Options{Scheme: cluster.Scheme()})
}

// snapshot reads the cluster, of namespaced objects those of one namespace or, with "", of all.
func (o *options) snapshot(ctx context.Context, namespace string) (*cluster.Snapshot, error) {
	c, err := o.client()
	if err != nil {
		return nil, err
	}
	return cluster.Read(ctx, c, namespace)
}

// namespace returns the one that is asked for, or else the context's.
func (o *options) namespace() (string, error) {
	namespace, _, err := o.flags.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// output is the flag -o of commands that print for people or for programs.
type output string

func (out *output) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(out), "output", "o", "", `"json" or "yaml"; empty for text`)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch *out {
		case "", "json", "yaml":
			return nil
		}
		return fmt.Errorf(`-o %s is not possible: write json or yaml, or leave it out for text`, *out)
	}
}

// print prints the value as it was asked for.
func (o *options) print(out output, value fmt.Stringer) error {
	var encoded []byte
	var err error
	switch out {
	case "json":
		encoded, err = json.MarshalIndent(value, "", "  ")
		encoded = append(encoded, '\n')
	case "yaml":
		encoded, err = yaml.Marshal(value)
	default:
		encoded = []byte(value.String())
	}
	if err != nil {
		return err
	}
	_, err = o.streams.Out.Write(encoded)
	return err
}
