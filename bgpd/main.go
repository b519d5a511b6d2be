// Command bgpd has the BGP sessions of a node. The speaker starts it, tells it on stdin what to announce, and reads from stdout how
// sessions stand; the log goes to stderr. It ends when stdin does.
package main

import (
	"flag"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/steelyard-lb/steelyard/pkg/bgp/gobgp"
	"github.com/steelyard-lb/steelyard/pkg/bgp/process"
)

func main() {
	var level slog.Level
	flag.TextVar(&level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	flag.Parse()
	// Routes stay for long, and little else is made: collecting often costs little.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	// What a library prints would look like a report.
	out := os.Stdout
	os.Stdout = os.Stderr
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := process.Serve(os.Stdin, out, gobgp.New(log)); err != nil {
		log.Error("BGP can't go on: " + err.Error())
		os.Exit(1)
	}
}
