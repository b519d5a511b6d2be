package controller

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/steelyard-lb/steelyard/pkg/api/v1beta1"
)

// bgpObjects are one of each kind, each with a fault.
func bgpObjects() []client.Object {
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
	multiplier := uint32(1)
	return []client.Object{
		newPeer("tor", "192.0.2.1", "tor"),
		&v1beta1.BGPAdvertisement{ObjectMeta: named("ad"), Spec: v1beta1.BGPAdvertisementSpec{Peers: []string{"spine"}}},
		&v1beta1.BFDProfile{ObjectMeta: named("fast"), Spec: v1beta1.BFDProfileSpec{DetectMultiplier: &multiplier}},
		&v1beta1.Community{ObjectMeta: named("names"), Spec: v1beta1.CommunitySpec{Communities: []v1beta1.CommunityAlias{{Name: "x", Value: "y"}}}},
	}
}

func newPeer(name, address, secret string) *v1beta1.BGPPeer {
	p := &v1beta1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1beta1.BGPPeerSpec{MyASN: 64512, PeerASN: 64513, PeerAddress: address}}
	if secret != "" {
		p.Spec.PasswordSecret = &v1beta1.PasswordSecret{Name: secret}
	}
	return p
}

func newSecret(namespace, name, password string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeBasicAuth,
		Data: map[string][]byte{"password": []byte(password)}}
}

// valid waits until the condition Valid of the object is "True Accepted" or such.
func (c *testCluster) valid(object client.Object, want string) {
	c.Helper()
	c.eventually(object.GetName()+" is "+want, func() string {
		if err := c.Get(context.Background(), client.ObjectKeyFromObject(object), object); err != nil {
			c.Fatal(err)
		}
		var conditions []metav1.Condition
		switch o := object.(type) {
		case *v1beta1.BGPPeer:
			conditions = o.Status.Conditions
		case *v1beta1.BGPAdvertisement:
			conditions = o.Status.Conditions
		case *v1beta1.BFDProfile:
			conditions = o.Status.Conditions
		case *v1beta1.Community:
			conditions = o.Status.Conditions
		}
		condition := meta.FindStatusCondition(conditions, "Valid")
		if condition == nil {
			return ""
		}
		return string(condition.Status) + " " + condition.Reason
	}, want)
}

func TestConditionsOfBGP(t *testing.T) {
	objects := bgpObjects()
	c := newCluster(t, append(objects, pool("prod", "192.0.2.0/32"))...)
	c.start(false)
	for i, reason := range []string{"SecretNotFound", "PeerNotFound", "InvalidValue", "MalformedCommunity"} {
		c.valid(objects[i], "False "+reason)
	}
	spine := newPeer("spine", "192.0.2.1", "")
	c.create(spine)
	c.valid(spine, "True Accepted")
	c.valid(objects[1], "True Accepted")

	// Only a Secret of the right type in the right namespace will do.
	c.create(newSecret("default", "tor", "hunter2"))
	opaque := newSecret("steelyard", "tor", "hunter2")
	opaque.Type = corev1.SecretTypeOpaque
	c.create(opaque)
	c.create(newSecret("steelyard", "other", "hunter2"))
	c.create(newPeer("witness", "192.0.2.2", "other"))
	c.valid(&v1beta1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "witness"}}, "True Accepted")
	c.valid(objects[0], "False SecretNotFound")
	c.delete(opaque)
	good := newSecret("steelyard", "tor", "hunter2")
	c.create(good)
	c.valid(objects[0], "True Accepted")
	good.Data = map[string][]byte{"passwort": []byte("hunter2")}
	if err := c.Update(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	c.valid(objects[0], "False SecretInvalid")
	c.delete(good)
	c.valid(objects[0], "False SecretNotFound")

	// A node that comes changes what may be said of two peers at one address.
	tor := newPeer("tor-2", "192.0.2.2", "")
	c.create(tor)
	c.valid(tor, "True Accepted")
	c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	c.valid(&v1beta1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "witness"}}, "False DuplicatePeer")
}

// What does not change is not written, and what is in a Secret is not told.
func TestConditionsAreWrittenOnce(t *testing.T) {
	objects := append(bgpObjects(), newPeer("spine", "192.0.2.2", "spine"), newSecret("steelyard", "spine", strings.Repeat("hunter2", 12)))
	c := newCluster(t, append(objects, pool("prod", "192.0.2.0/24"))...)
	var log bytes.Buffer
	r := c.startLogging(false, slog.New(slog.NewTextHandler(&log, nil)))
	c.valid(objects[3], "False MalformedCommunity")
	c.valid(objects[4], "False SecretInvalid")
	for _, name := range []string{"a", "b", "c"} {
		c.create(newService(name))
		c.create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	c.eventually("counters", func() string { return c.poolStatus("prod") }, "3 253 0 0 True")
	r.stop()
	for resource, want := range map[string]int{"bgppeers": 2, "bgpadvertisements": 1, "bfdprofiles": 1, "communities": 1} {
		if n := c.api.times("patch " + resource + "/status"); n != want {
			t.Errorf("%d writes to %s, want %d", n, resource, want)
		}
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the password is in the log:\n%s", log.String())
	}
	if n := strings.Count(log.String(), "SecretNotFound"); n != 1 {
		t.Errorf("the missing Secret is logged %d times:\n%s", n, log.String())
	}
}

func TestSlimSecret(t *testing.T) {
	secret := newSecret("steelyard", "tor", "hunter2")
	secret.Data["username"] = []byte("u")
	secret.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "hunter2"}
	slim, err := slimSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	if s := slim.(*corev1.Secret); len(s.Data) != 1 || string(s.Data["password"]) != "hunter2" || s.Annotations != nil || s.Type != secret.Type {
		t.Errorf("%v", s)
	}
}
