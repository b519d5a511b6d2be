package speaker

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// setPassword takes a Secret that is new or has changed.
func (v *inventory) setPassword(_ string, s *corev1.Secret) {
	v.mu.Lock()
	defer v.mu.Unlock()
	password, ok := s.Data[corev1.BasicAuthPasswordKey]
	if old, had := v.passwords[s.Name]; had == ok && old == string(password) {
		return
	}
	if ok {
		v.passwords[s.Name] = string(password)
	} else {
		delete(v.passwords, s.Name)
	}
	v.wake()
}

// removePassword forgets a Secret.
func (v *inventory) removePassword(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, name, _ := strings.Cut(key, "/")
	delete(v.passwords, name)
	v.wake()
}
