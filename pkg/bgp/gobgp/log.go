package gobgp

import (
	"context"
	"log/slog"
)

// handler gives GoBGP's warnings and errors to a log of ours, with the peer's name. What is not worth a warning, Sessions tell.
type handler struct {
	slog.Handler
	nameOf func(address string) string
}

func newHandler(log *slog.Logger, nameOf func(string) string) *handler {
	return &handler{Handler: log.Handler(), nameOf: nameOf}
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == acceptedTooEarly {
		return nil
	}
	out := slog.NewRecord(r.Time, r.Level, "GoBGP: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.rename(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	renamed := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		renamed[i] = h.rename(a)
	}
	return &handler{Handler: h.Handler.WithAttrs(renamed), nameOf: h.nameOf}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), nameOf: h.nameOf}
}

func (h *handler) rename(a slog.Attr) slog.Attr {
	if a.Key == "Key" && a.Value.Kind() == slog.KindString {
		if name := h.nameOf(a.Value.String()); name != "" {
			return slog.String("peer", name)
		}
	}
	return a
}
