package bgp

import "errors"

// Community is a standard (RFC 1997) or large (RFC 8092) community. Of a standard one, A and B are the two halves and C is 0.
type Community struct {
	Large   bool
	A, B, C uint32
}

// ParseCommunity reads 65000:100, large:65000:1:2, or a well-known name such as no-export.
func ParseCommunity(text string) (Community, error) {
	return Community{}, errors.New("not written yet")
}
