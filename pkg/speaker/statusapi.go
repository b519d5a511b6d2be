package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/steelyard-lb/steelyard/pkg/announce"
	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

const (
	sessionsResource      = "bgpsessions"
	announcementsResource = "serviceannouncements"
	// nodeLabel is on all status objects; nodeLabelValue gives its value.
	nodeLabel = "steelyard.io/node"
	// apiTimeout is for one request.
	apiTimeout = 10 * time.Second
)

// announcementKey returns the object for a Service named namespace/name, and the Service's name. There are no dots in it, so that no two
// objects have one name.
func (s *statuses) announcementKey(service string) (statusKey, string) {
	namespace, name, _ := strings.Cut(service, "/")
	return statusKey{announcementsResource, namespace, shortened(name+"."+s.node, validation.DNS1123SubdomainMaxLength)}, name
}

// sessionKey returns the object for the session with a peer.
func (s *statuses) sessionKey(peer string) statusKey {
	name := s.node + "." + peer
	if strings.Contains(peer, ".") {
		name += "-" + digest(s.node+"/"+peer) // node a.b and peer c are not node a and peer b.c
	}
	return statusKey{sessionsResource, "", shortened(name, validation.DNS1123SubdomainMaxLength)}
}

func nodeLabelValue(node string) string { return shortened(node, validation.LabelValueMaxLength) }

// shortened returns a name of at most n characters that stands for the whole name.
func shortened(name string, n int) string {
	if len(name) <= n {
		return name
	}
	hash := digest(name)
	return strings.TrimRight(name[:n-len(hash)-1], ".-") + "-" + hash
}

func digest(text string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return fmt.Sprintf("%016x", h.Sum64())
}

// write makes the object's status this one; "" deletes the object.
func (s *statuses) write(ctx context.Context, key statusKey, status string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if status == "" {
		return s.api.deleteStatus(ctx, key)
	}
	kind := "ServiceAnnouncement"
	if key.resource == sessionsResource {
		kind = "BGPSession"
	}
	object := encode(map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": kind,
		"metadata": map[string]any{"name": key.name, "labels": map[string]string{nodeLabel: nodeLabelValue(s.node)}},
		"status":   json.RawMessage(status),
	})
	// Server-side apply makes the object or changes it, whichever it takes, without reading it first.
	return s.api.steelyard.Patch(types.ApplyPatchType).NamespaceIfScoped(key.namespace, key.namespace != "").Resource(key.resource).Name(key.name).
		Param("fieldManager", component).Param("force", "true").Body([]byte(object)).Do(ctx).Error()
}

func (a *api) deleteStatus(ctx context.Context, key statusKey) error {
	err := a.steelyard.Delete().NamespaceIfScoped(key.namespace, key.namespace != "").Resource(key.resource).Name(key.name).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// eachStatus calls f with the status of each object that the label selector matches.
func (a *api) eachStatus(ctx context.Context, resource, selector string, f func(key statusKey, status []byte) error) error {
	next := ""
	for {
		var list struct {
			Metadata struct{ Continue string }
			Items    []struct {
				Metadata struct{ Namespace, Name string }
				Status   json.RawMessage
			}
		}
		request := a.steelyard.Get().Resource(resource).Param("labelSelector", selector).Param("limit", "500").Timeout(apiTimeout)
		if next != "" {
			request.Param("continue", next)
		}
		body, err := request.Do(ctx).Raw()
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", resource, err)
		}
		for _, o := range list.Items {
			key := statusKey{resource, o.Metadata.Namespace, o.Metadata.Name}
			if err := f(key, o.Status); err != nil {
				return fmt.Errorf("%s %s/%s: %w", resource, key.namespace, key.name, err)
			}
		}
		if next = list.Metadata.Continue; next == "" {
			return nil
		}
	}
}

// refusedByAPI tells whether the API server has answered that it does not want this one; then others may still be welcome.
func refusedByAPI(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= 400 && code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests && code != http.StatusUnauthorized
}

// writeEvents writes the Events of sessions. It returns false if the API server is away.
func (s *statuses) writeEvents(ctx context.Context) bool {
	events := map[string]sessionEvent{}
	s.mu.Lock()
	for peer, e := range s.events {
		if !time.Now().Before(e.due) {
			events[peer] = e
			delete(s.events, peer)
		}
	}
	s.mu.Unlock()
	there := true
	for peer, e := range events {
		err := s.writeEvent(ctx, peer, e)
		if err == nil {
			continue
		}
		s.complain(ctx, "Event of BGP session not written", err, "peer", peer, "reason", e.reason)
		if !refusedByAPI(err) {
			there = false
			s.mu.Lock()
			if _, newer := s.events[peer]; !newer {
				s.events[peer] = e
			}
			s.mu.Unlock()
		}
	}
	return there
}

func (s *statuses) writeEvent(ctx context.Context, peer string, e sessionEvent) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	// `kubectl describe` shows Events that have the object's UID only.
	var object metav1.PartialObjectMetadata
	body, err := s.api.steelyard.Get().Resource("bgppeers").Name(peer).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(body, &object)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get BGPPeer: %w", err)
	}
	kind := corev1.EventTypeNormal
	if e.reason == announce.SessionDown {
		kind = corev1.EventTypeWarning
	}
	about := corev1.ObjectReference{APIVersion: v1beta1.GroupVersion.String(), Kind: "BGPPeer", Name: peer, UID: object.UID}
	err = s.api.core.Post().Namespace(metav1.NamespaceDefault).Resource("events").
		Body(newEvent(s.node, about, kind, e.reason, e.message, e.at)).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// buryDead deletes what nodes that are gone have left. It goes on until that is done or ctx is; to be called on one speaker only.
func (s *statuses) buryDead(ctx context.Context, dead []string) {
	var values []string
	for _, node := range dead {
		if node != s.node {
			values = append(values, nodeLabelValue(node))
		}
	}
	if len(values) > 0 {
		slices.Sort(values)
		s.bury(ctx, nodeLabel+" in ("+strings.Join(values, ",")+")", func(context.Context, string) (bool, error) { return false, nil })
	}
}

// buryUnknown does so with what nodes have left that are not among the known ones, those that went while nobody looked. Others may have come
// since, and the API server knows them.
func (s *statuses) buryUnknown(ctx context.Context, known []string) {
	values := []string{nodeLabelValue(s.node)}
	for _, node := range known {
		values = append(values, nodeLabelValue(node))
	}
	slices.Sort(values)
	s.bury(ctx, nodeLabel+","+nodeLabel+" notin ("+strings.Join(slices.Compact(values), ",")+")", s.api.hasNode)
}

func (s *statuses) bury(ctx context.Context, selector string, lives func(ctx context.Context, node string) (bool, error)) {
	for {
		err := s.buryOnce(ctx, selector, lives)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.Warn("status objects of nodes that are gone are not deleted yet", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(statusRefused):
		}
	}
}

func (s *statuses) buryOnce(ctx context.Context, selector string, lives func(ctx context.Context, node string) (bool, error)) error {
	for _, resource := range []string{sessionsResource, announcementsResource} {
		byNode := map[string][]statusKey{}
		err := s.api.eachStatus(ctx, resource, selector, func(key statusKey, raw []byte) error {
			var status struct{ Node string }
			_ = json.Unmarshal(raw, &status) // nobody's without a node
			byNode[status.Node] = append(byNode[status.Node], key)
			return nil
		})
		if err != nil {
			return err
		}
		for node, keys := range byNode {
			if there, err := lives(ctx, node); err != nil {
				return fmt.Errorf("get Node %s: %w", node, err)
			} else if there {
				continue
			}
			for _, key := range keys {
				if err := s.api.deleteStatus(ctx, key); err != nil {
					return fmt.Errorf("delete %s %s/%s: %w", key.resource, key.namespace, key.name, err)
				}
			}
		}
	}
	return nil
}

// hasNode tells whether there is a Node of that name.
func (a *api) hasNode(ctx context.Context, name string) (bool, error) {
	if name == "" {
		return false, nil
	}
	err := a.core.Get().Resource("nodes").Name(name).Timeout(apiTimeout).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
