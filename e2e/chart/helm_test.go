// Package chart_test runs the real Helm on the chart at the repository's root and checks what it makes of it.
package chart_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	root      = "../.."
	release   = "steelyard"
	namespace = "steelyard-system"
)

// helm runs Helm in the chart's folder, with no configuration of the user's and no cluster.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	program := os.Getenv("STEELYARD_HELM")
	if program == "" {
		var err error
		if program, err = exec.LookPath("helm"); err != nil {
			t.Fatal("these tests need Helm 4: name its program in STEELYARD_HELM or put it in PATH")
		}
	}
	home := t.TempDir()
	cmd := exec.Command(program, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home,
		"KUBECONFIG="+home+"/none")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// mustHelm is helm for a command that has to succeed.
func mustHelm(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := helm(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// render gives the objects of the chart, each of which has to be one that the API server knows, without a field that it
// does not know. The arguments go to `helm template`.
func render(t *testing.T, args ...string) []runtime.Object {
	t.Helper()
	return decode(t, mustHelm(t, append([]string{"template", release, ".", "--namespace", namespace}, args...)...))
}

var strict = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientscheme.AddToScheme(scheme))
	utilruntime.Must(apiextensionsv1.AddToScheme(scheme))
	utilruntime.Must(v1beta1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decode reads YAML documents strictly: unknown kinds, unknown fields and repeated fields are errors.
func decode(t *testing.T, documents string) []runtime.Object {
	t.Helper()
	var objects []runtime.Object
	for document := range strings.SplitSeq("\n"+documents, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		object, _, err := strict.Decode([]byte(document), nil, nil)
		if err != nil {
			t.Fatalf("the API server would refuse this: %v\n%s", err, document)
		}
		objects = append(objects, object)
	}
	return objects
}

// find gives the only object of type T; with names, the only one that carries one of them.
func find[T runtime.Object](t *testing.T, objects []runtime.Object, names ...string) T {
	t.Helper()
	found := all[T](objects)
	if len(names) > 0 {
		var named []T
		for _, object := range found {
			for _, name := range names {
				if accessor, err := meta.Accessor(object); err == nil && accessor.GetName() == name {
					named = append(named, object)
				}
			}
		}
		found = named
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T named %q, want one", len(found), *new(T), names)
	}
	return found[0]
}

func all[T runtime.Object](objects []runtime.Object) []T {
	var found []T
	for _, object := range objects {
		if object, ok := object.(T); ok {
			found = append(found, object)
		}
	}
	return found
}
