package health

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Status is what /healthz tells.
type Status struct {
	// Healthy: no change has been waiting too long for being put in the kernel.
	Healthy bool
	// Eligible: the Node exists, and is not about to go, so that new connections should come to it.
	Eligible bool
	// Updated is when the rules were last up to date; now, while they are.
	Updated time.Time
}

// Signature is the Server header of the answers, by which another speaker on the node tells them from another proxy's.
const Signature = "steelyard"

type family struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

type statusBody struct {
	LastUpdated  time.Time         `json:"lastUpdated"`
	CurrentTime  time.Time         `json:"currentTime"`
	NodeEligible *bool             `json:"nodeEligible,omitempty"`
	Healthy      bool              `json:"healthy"`
	Status       map[string]family `json:"status"`
}

// Handler answers /healthz, which load balancers probe (KEP-3836), /livez, which stays well while a node is drained, and /proxyMode. count
// is called for each answer of the first two.
func Handler(status func() Status, mode string, count func(path string, code int)) http.Handler {
	answer := func(eligibility bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s := status()
			f := family{s.Updated, s.Healthy}
			// Both families are programmed by the same sync.
			body := statusBody{LastUpdated: s.Updated, CurrentTime: time.Now(), Healthy: s.Healthy, Status: map[string]family{"IPv4": f, "IPv6": f}}
			if eligibility {
				body.NodeEligible = &s.Eligible
				body.Healthy = s.Healthy && s.Eligible
			}
			count(r.URL.Path, reply(w, body.Healthy, body))
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", answer(true))
	mux.HandleFunc("/livez", answer(false))
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		io.WriteString(w, mode)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", Signature)
		mux.ServeHTTP(w, r)
	})
}

// Serve serves h until ctx ends. While the address can't be had it is tried again: it may be another proxy's, which is about to leave.
func Serve(ctx context.Context, bind netip.AddrPort, h http.Handler, log *slog.Logger) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	for said := false; ctx.Err() == nil; {
		l, err := net.Listen("tcp", bind.String())
		if err == nil {
			said = false
			err = server.Serve(l)
		}
		if ctx.Err() == nil && !said {
			said = true
			log.Warn("/healthz is not served; will keep trying. See what has the port with: ss -ltnp", "address", bind, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
}
