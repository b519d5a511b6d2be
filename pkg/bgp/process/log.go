package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// trace is what the Go runtime writes to stderr when it ends a process.
type trace struct {
	cause string // its first line
	text  string
	// lastError is the last error that the process logged itself.
	lastError string
}

// traceLimit is how much of a trace is kept: the goroutine that panicked comes first.
const traceLimit = 8 << 10

func (t trace) report(log *slog.Logger) {
	if t.text != "" {
		log.Error("The BGP process panicked. Please report this with the trace.", "panic", t.cause, "trace", t.text)
	}
}

// relay gives each line of a child's stderr to log, until it ends: records of slog.JSONHandler as they were, other lines as warnings. A
// trace is not logged but returned.
func relay(stderr io.Reader, log *slog.Logger) trace {
	var t trace
	var text strings.Builder
	reader := bufio.NewReaderSize(stderr, 64<<10)
	for rest := false; ; {
		b, more, err := reader.ReadLine()
		if err != nil {
			t.text = strings.TrimSpace(text.String())
			return t
		}
		line := string(b)
		switch {
		case rest: // what does not fit into the buffer is not kept
		case t.cause != "":
			if text.Len()+len(line) < traceLimit {
				text.WriteString(line + "\n")
			}
		case strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "), strings.HasPrefix(line, "runtime: "), strings.HasPrefix(line, "SIG"):
			t.cause = line
		default:
			level, message, ok := pass(log, b)
			if ok && level >= slog.LevelError {
				t.lastError = message
			} else if !ok && line != "" {
				log.Warn(line)
			}
		}
		rest = more
	}
}

// pass logs a record as the child did, and returns false if line is none.
func pass(log *slog.Logger, line []byte) (level slog.Level, message string, ok bool) {
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber() // an ASN is no 4.2e+09
	if decoder.Decode(&fields) != nil {
		return 0, "", false
	}
	text, _ := fields[slog.LevelKey].(string)
	message, ok = fields[slog.MessageKey].(string)
	if level.UnmarshalText([]byte(text)) != nil || !ok {
		return 0, "", false
	}
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return level, message, true
	}
	when, _ := fields[slog.TimeKey].(string)
	at, err := time.Parse(time.RFC3339Nano, when)
	if err != nil {
		at = time.Now()
	}
	record := slog.NewRecord(at, level, message, 0)
	for _, key := range []string{slog.LevelKey, slog.MessageKey, slog.TimeKey} {
		delete(fields, key)
	}
	record.AddAttrs(attributes(fields)...)
	_ = log.Handler().Handle(ctx, record)
	return level, message, true
}

func attributes(fields map[string]any) []slog.Attr {
	var all []slog.Attr
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if group, ok := fields[key].(map[string]any); ok {
			all = append(all, slog.Attr{Key: key, Value: slog.GroupValue(attributes(group)...)})
			continue
		}
		all = append(all, slog.Any(key, fields[key]))
	}
	return all
}
