package speaker

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// health answers whether the speaker is ready to announce.
type health struct {
	mu    sync.Mutex
	check func() error
}

func (h *health) set(check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.check = check
}

func (h *health) ready(w http.ResponseWriter, _ *http.Request) {
	h.mu.Lock()
	check := h.check
	h.mu.Unlock()
	err := errors.New("waiting for the API server")
	if check != nil {
		err = check()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
