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
	return fmt.Sprintf("%.1f us", seconds*1e6)
}

// ratio is the median of the ratios of what was measured at the same time.
func ratio(ours, theirs sample) float64 {
	var ratios sample
	for i := range ours {
		ratios = append(ratios, ours[i]/theirs[i])
	}
	return ratios.median()
}

// label is how wide a row's name is. It stands on the left, all else on the right.
const label = "%-54s"

// printTable prints the columns in pairs: kube-proxy's, Steelyard's, and their ratio.
func printTable(columns []*column) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer func() {
		w.Flush()
		fmt.Println("\nkube-proxy's times leave out that it waits for up to a second, by default, between a sync and the next.")
	}()
	row := func(name string, text func(float64) string, of func(*column) sample) {
		fmt.Fprintf(w, label, name)
		for i := 0; i < len(columns); i += 2 {
			theirs, ours := of(columns[i]), of(columns[i+1])
			fmt.Fprintf(w, "\t%s\t%s\t%.3g", text(theirs.median()), text(ours.median()), ratio(ours, theirs))
		}
		fmt.Fprintln(w, "\t")
	}
	count := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	bytes := func(v float64) string { return fmt.Sprintf("%.0f MB", v/1e6) }
	speed := func(v float64) string { return fmt.Sprintf("%.1f Gbit/s", v*8/1e9) }
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
	row("Services", count, func(c *column) sample { return sample{float64(c.services)} })
	row("full load", duration, func(c *column) sample { return c.load })
	row("one Service added, in the kernel", duration, func(c *column) sample { return c.addKernel })
	row("one Service added, from the event", duration, func(c *column) sample { return c.addEvent })
	row("one endpoint changed, in the kernel", duration, func(c *column) sample { return c.changeKernel })
	row("one endpoint changed, from the event", duration, func(c *column) sample { return c.changeEvent })
	row("memory of the proxy", bytes, func(c *column) sample { return c.held })
	row("most memory of a process, be it nft or iptables", bytes, func(c *column) sample { return c.largest })
	row("time to connect through an address", duration, func(c *column) sample { return c.connect })
	row("connections per second", count, func(c *column) sample { return c.rate })
	row("throughput of one connection", speed, func(c *column) sample { return c.throughput })
}
