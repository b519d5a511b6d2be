package speaker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// component is whom the Events are from.
const component = "steelyard-speaker"

// reporter writes conditions and Events to the API, one Service after the other, beside the speaker's loop. What the API does not take
// is tried again until it does, or until the Service has other news.
type reporter struct {
	api  *api
	node string
	log  *slog.Logger

	mu      sync.Mutex
	pending map[string]report // by the Service's namespace/name, or the node's name
	wake    chan struct{}
}

// report is the latest news about a Service.
type report struct {
	condition *condition // nil: take the condition back; meaningful if patch
	patch     bool
	event     *event
}

// condition is a metav1.Condition whose transition may be as it was.
type condition struct {
	Type               string                 `json:"type"`
	Status             metav1.ConditionStatus `json:"status"`
	LastTransitionTime *metav1.Time           `json:"lastTransitionTime,omitempty"`
	Reason             string                 `json:"reason"`
	Message            string                 `json:"message"`
}

type event struct {
	reason  announce.Reason
	message string
}

func newReporter(a *api, node string, log *slog.Logger) *reporter {
	return &reporter{api: a, node: node, log: log, pending: map[string]report{}, wake: make(chan struct{}, 1)}
}

// Complain implements Reporter.
func (r *reporter) Complain(service string, reason announce.Reason, message string, amends bool) {
	news := report{patch: true, condition: &condition{
		Type: v1beta1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: string(reason), Message: message,
	}}
	if !amends {
		now := metav1.Now()
		news.event, news.condition.LastTransitionTime = &event{reason, message}, &now
	}
	r.put(service, news)
}

// Withdraw implements Reporter.
func (r *reporter) Withdraw(service string) { r.put(service, report{patch: true}) }

// Warn implements Reporter.
func (r *reporter) Warn(service string, reason announce.Reason, message string) {
	r.put(service, report{event: &event{reason, message}})
}

// WarnNode makes an Event about this node.
func (r *reporter) WarnNode(reason announce.Reason, message string) {
	r.put(r.node, report{event: &event{reason, message}})
}

// put has the news written; they take the place of what waits to be written about the same thing.
func (r *reporter) put(service string, news report) {
	r.mu.Lock()
	r.pending[service] = news.over(r.pending[service])
	r.mu.Unlock()
	nudge(r.wake)
}

// over returns the news with what they don't speak of taken from older ones.
func (n report) over(older report) report {
	if !n.patch {
		n.patch, n.condition = older.patch, older.condition
	}
	if n.event == nil {
		n.event = older.event
	}
	return n
}

// run writes until ctx is done.
func (r *reporter) run(ctx context.Context) {
	const retry = 2 * time.Second
	for {
		var again <-chan time.Time
		for service, news := range r.take() {
			if err := r.write(ctx, service, news); err != nil {
				r.log.Warn("condition or Event not written yet", "service", service, "error", err)
				r.putBack(service, news)
				again = time.After(retry)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-again:
		}
	}
}

func (r *reporter) take() map[string]report {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.pending
	r.pending = map[string]report{}
	return taken
}

func (r *reporter) putBack(service string, news report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[service] = r.pending[service].over(news)
}

func (r *reporter) write(ctx context.Context, service string, news report) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	about := corev1.ObjectReference{APIVersion: "v1", Kind: "Service"}
	var namespaced bool
	if about.Namespace, about.Name, namespaced = strings.Cut(service, "/"); !namespaced {
		about = corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: service, UID: types.UID(service)} // as the kubelet does
	}
	var err error
	switch {
	case news.patch:
		about.UID, err = uidOf(ctx, r.api.core.Patch(types.StrategicMergePatchType).Namespace(about.Namespace).Resource("services").Name(about.Name).
			SubResource("status").Body(conditionPatch(news.condition)))
	case namespaced:
		about.UID, err = uidOf(ctx, r.api.core.Get().Namespace(about.Namespace).Resource("services").Name(about.Name))
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch or get the Service: %w", err)
	}
	if news.event == nil {
		return nil
	}
	e := newEvent(r.node, about, corev1.EventTypeWarning, news.event.reason, news.event.message, time.Now())
	err = r.api.core.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Event: %w", err)
	}
	return nil
}

// uidOf makes a request and returns the UID of the Service that it answers with. `kubectl describe` shows Events that have it only.
func uidOf(ctx context.Context, request *rest.Request) (types.UID, error) {
	var svc corev1.Service
	err := request.Do(ctx).Into(&svc)
	return svc.UID, err
}

// conditionPatch sets one condition and leaves those of others alone; nil takes it back.
func conditionPatch(c *condition) []byte {
	var entry any = c
	if c == nil {
		entry = map[string]string{"$patch": "delete", "type": v1beta1.ConditionAnnounced}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{entry}}})
	if err != nil {
		panic(err) // there is nothing in it that could not be encoded
	}
	return patch
}

// newEvent returns an Event of a node's speaker. One about an object without a namespace is in the default one, as the kubelet's are.
func newEvent(node string, about corev1.ObjectReference, kind string, reason announce.Reason, message string, at time.Time) *corev1.Event {
	// The node is in the name, because several may have news of one object at a time.
	name := shortened(fmt.Sprintf("%s.%s.%x", about.Name, node, at.UnixNano()), validation.DNS1123SubdomainMaxLength)
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: cmp.Or(about.Namespace, metav1.NamespaceDefault), Name: name},
		InvolvedObject: about,
		Type:           kind,
		Reason:         string(reason),
		Message:        message,
		Source:         corev1.EventSource{Component: component, Host: node},
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
		ReportingController: component, ReportingInstance: node,
	}
}
