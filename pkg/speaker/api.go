package speaker

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
	"github.com/steelyard-lb/steelyard/pkg/membership"
)

// api holds one REST client for each group that the speaker uses. Clients for everything in Kubernetes would take more memory than all
// that the speaker knows.
type api struct {
	core, discovery, steelyard rest.Interface
}

func newAPI(cfg *rest.Config) (*api, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(gv schema.GroupVersion, path, contentType string) (rest.Interface, error) {
		c := rest.CopyConfig(cfg)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, path, codecs
		c.ContentType, c.AcceptContentTypes = contentType, contentType+","+runtime.ContentTypeJSON
		c.QPS = -1 // the API server has priority and fairness of its own
		return rest.RESTClientFor(c)
	}
	var a api
	var err error
	if a.core, err = client(corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf); err != nil {
		return nil, err
	}
	if a.discovery, err = client(discoveryv1.SchemeGroupVersion, "/apis", runtime.ContentTypeProtobuf); err != nil {
		return nil, err
	}
	a.steelyard, err = client(v1beta1.GroupVersion, "/apis", runtime.ContentTypeJSON)
	return &a, err
}

// keyEntry is the entry of the Secret that holds the speakers' key.
const keyEntry = "key"

// key returns the speakers' key, or an error that says what to do.
func (a *api) key(ctx context.Context, namespace, name string) ([]byte, error) {
	var secret corev1.Secret
	err := a.core.Get().Namespace(namespace).Resource("secrets").Name(name).Do(ctx).Into(&secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no Secret %s/%s yet: the leading controller creates it, see that it runs", namespace, name)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("may not read Secret %s/%s: allow `get` on it in the Role of the speaker's service account: %w", namespace, name, err)
	case err != nil:
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	case len(secret.Data[keyEntry]) != membership.KeySize:
		return nil, fmt.Errorf("the Secret %s/%s is unusable: data.%s has %d bytes and must have %d: delete the Secret, the controller makes it anew, and then restart the speakers",
			namespace, name, keyEntry, len(secret.Data[keyEntry]), membership.KeySize)
	}
	return secret.Data[keyEntry], nil
}

// awaitKey reads the key, and waits for it as long as it must.
func (a *api) awaitKey(ctx context.Context, o Options) ([]byte, error) {
	return await(ctx, o, "waiting for the key of the speakers", func() ([]byte, bool, error) {
		key, err := a.key(ctx, o.Namespace, o.MemberlistSecret)
		return key, true, err
	})
}

// awaitNode checks the node's name: a wrong one never announces anything, and so ends the speaker; anything else may mend itself.
func (a *api) awaitNode(ctx context.Context, o Options) error {
	_, err := await(ctx, o, "waiting for the API server", func() (struct{}, bool, error) {
		err := a.core.Get().Resource("nodes").Name(o.Node).Do(ctx).Into(&corev1.Node{})
		if apierrors.IsNotFound(err) {
			return struct{}{}, false, fmt.Errorf("there is no Node %q: set --node-name or NODE_NAME to the name in `kubectl get nodes`, "+
				"in a pod from the field spec.nodeName", o.Node)
		}
		return struct{}{}, true, err
	})
	return err
}

// await repeats f until it succeeds or says that it is no use. It logs each new error once.
func await[T any](ctx context.Context, o Options, what string, f func() (result T, again bool, err error)) (T, error) {
	const interval = 500 * time.Millisecond
	told := ""
	for {
		result, again, err := f()
		if err == nil || !again {
			return result, err
		}
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if err.Error() != told {
			told = err.Error()
			o.Log.Warn(what, "error", err)
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(interval):
		}
	}
}
