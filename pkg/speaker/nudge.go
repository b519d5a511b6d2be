package speaker

// nudge has whoever reads from c, which holds one, look again; one that is about to do so anyway is not told twice.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
