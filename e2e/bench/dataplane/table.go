package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

func duration(seconds float64) string {
	switch d := time.Duration(seconds * 1e9); {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", seconds)
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", seconds)
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.0f us", seconds*1e6)
}

// label is how wide a row's name is. It stands on the left, all else on the right.
const label = "%-54s"

// printTable prints the columns in pairs: kube-proxy's, Steelyard's, and their ratio.
func printTable(columns []*column) {
	mega := func(v float64) string { return fmt.Sprintf("%.0f MB", v/1e6) }
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer func() {
		w.Flush()
		fmt.Println("\nkube-proxy's times leave out that it waits for up to a second, by default, between a sync and the next.")
	}()
	row := func(name string, cell func(*column) (value float64, text string)) {
		fmt.Fprintf(w, label, name)
		for i := 0; i < len(columns); i += 2 {
			theirs, theirText := cell(columns[i])
			ours, ourText := cell(columns[i+1])
			fmt.Fprintf(w, "\t%s\t%s\t%.3g", theirText, ourText, ours/theirs)
		}
		fmt.Fprintln(w, "\t")
	}
	times := func(of func(*column) time.Duration) func(*column) (float64, string) {
		return func(c *column) (float64, string) { return of(c).Seconds(), duration(of(c).Seconds()) }
	}
	fmt.Fprintf(w, label, "")
	for i := 0; i < len(columns); i += 2 {
		fmt.Fprintf(w, "\t\t%s\tratio,", columns[i].backend)
	}
	fmt.Fprintln(w, "\t")
	fmt.Fprintf(w, label, "")
	for i := 0; i < len(columns); i += 2 {
		fmt.Fprintf(w, "\t%s\t%s\tkube-proxy's = 1", columns[i].proxy, columns[i+1].proxy)
	}
	fmt.Fprintln(w, "\t")
	row("Services", func(c *column) (float64, string) { return float64(c.services), fmt.Sprint(c.services) })
	row("full load", times(func(c *column) time.Duration { return c.load }))
	row("one Service added, in the kernel", times(func(c *column) time.Duration { return c.addKernel }))
	row("one Service added, from the event", times(func(c *column) time.Duration { return c.addEvent }))
	row("one endpoint changed, in the kernel", times(func(c *column) time.Duration { return c.changeKernel }))
	row("one endpoint changed, from the event", times(func(c *column) time.Duration { return c.changeEvent }))
	row("memory of the proxy", func(c *column) (float64, string) { return c.held, mega(c.held) })
	row("most memory of a process, be it nft or iptables", func(c *column) (float64, string) { return c.largest, mega(c.largest) })
	row("time to connect through an address", func(c *column) (float64, string) { return c.connect, duration(c.connect) })
	row("connections per second", func(c *column) (float64, string) { return c.rate, fmt.Sprintf("%.0f", c.rate) })
	row("throughput of one connection", func(c *column) (float64, string) {
		return c.bytesPerTime, fmt.Sprintf("%.1f Gbit/s", c.bytesPerTime*8/1e9)
	})
}
