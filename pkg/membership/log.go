package membership

import (
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"
)

// logWriter takes memberlist's log lines into slog. They are debug output, since memberlist reports as errors what
// is everyday on a network. The exception is a packet under another key: memberlist would say so with each packet.
type logWriter struct {
	log  *slog.Logger
	once onceInAWhile
}

func newLogWriter(log *slog.Logger) *logWriter { return &logWriter{log: log} }

// The address is what memberlist's LogAddress and LogConn write.
var wrongKey = regexp.MustCompile(`(?:No installed keys could decrypt the message|encryption is configured but remote state is not encrypted|Decrypt packet failed).*from=(\S+)`)

func (w *logWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if match := wrongKey.FindStringSubmatch(text); match != nil {
		host, _, err := net.SplitHostPort(match[1])
		if err != nil {
			host = match[1]
		}
		if w.once.allow(time.Now(), host) {
			w.log.Warn("a speaker uses another memberlist key and can't join: give all speakers the same Secret and restart the ones that started with another", "address", host)
		}
		return len(line), nil
	}
	w.log.Debug(text)
	return len(line), nil
}
