package controller

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	memberlistKey      = "key"
	memberlistKeyBytes = 32 // AES-256
)

// memberlistSecret keeps the Secret with which the speakers encrypt what they tell each other.
type memberlistSecret struct {
	client client.Client
	live   client.Reader // a cache would have to watch Secrets that are none of ours
	name   types.NamespacedName
	log    *slog.Logger
}

// Start creates the Secret when it is missing, until the context ends. It has a look every now and then, because a speaker that
// starts without the Secret waits for it.
func (m *memberlistSecret) Start(ctx context.Context) error {
	const interval, retry = 30 * time.Second, time.Second
	told := "" // so that what does not change is logged once
	for {
		wait := interval
		text := ""
		if err := m.ensure(ctx); err != nil {
			wait, text = retry, err.Error()
		}
		if text != "" && text != told && ctx.Err() == nil {
			m.log.Error(text)
		}
		told = text
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// ensure creates the Secret when it is missing. One that has no usable key is left alone: speakers may be running with the key
// that it had.
func (m *memberlistSecret) ensure(ctx context.Context) error {
	var secret corev1.Secret
	err := m.live.Get(ctx, m.name, &secret)
	if err == nil {
		if n := len(secret.Data[memberlistKey]); n != memberlistKeyBytes {
			return fmt.Errorf("the Secret %s is unusable: data.%s has %d bytes and must have %d: delete the Secret, it is made anew, and then restart the speakers",
				m.name, memberlistKey, n, memberlistKeyBytes)
		}
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", m.name, err)
	}
	key := make([]byte, memberlistKeyBytes)
	rand.Read(key) // never fails
	secret = corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.name.Namespace, Name: m.name.Name},
		Data:       map[string][]byte{memberlistKey: key},
	}
	if err := m.client.Create(ctx, &secret); err != nil {
		return fmt.Errorf("create Secret %s: %w", m.name, err)
	}
	m.log.Info("memberlist key created", "secret", m.name)
	return nil
}
