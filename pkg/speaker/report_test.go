package speaker

import (
	"log/slog"
	"testing"

	"github.com/steelyard-lb/steelyard/pkg/announce"
)

func TestReportsAreNotLost(t *testing.T) {
	const service = "default/web"
	for name, c := range map[string]struct {
		then      func(*reporter)
		condition bool // a condition is to be written, not taken back
		event     announce.Reason
	}{
		"nothing new":           {func(*reporter) {}, true, announce.AddressConflict},
		"a warning meanwhile":   {func(r *reporter) { r.Warn(service, announce.NoInterface, "") }, true, announce.NoInterface},
		"taken back meanwhile":  {func(r *reporter) { r.Withdraw(service) }, false, announce.AddressConflict},
		"another one meanwhile": {func(r *reporter) { r.Complain(service, announce.NoInterface, "", false) }, true, announce.NoInterface},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReporter(nil, "node", slog.New(slog.DiscardHandler))
			r.Complain(service, announce.AddressConflict, "", false)
			failed := r.take()[service] // as when the API server does not take it
			c.then(r)
			r.putBack(service, failed)
			got := r.take()[service]
			if !got.patch || (got.condition != nil) != c.condition || got.event == nil || got.event.reason != c.event {
				t.Errorf("left to be written: %+v", got)
			}
		})
	}
}
