package traffic

import (
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	served := func(ms int) try { return try{began: at(ms), served: true} }
	lost := func(ms int) try { return try{began: at(ms)} }
	for name, c := range map[string]struct {
		tries []try
		end   int
		want  int // ms
		lost  int
	}{
		"nothing lost":            {[]try{served(0), served(20), served(300)}, 310, 0, 0},
		"one lost":                {[]try{served(0), lost(20), served(40)}, 50, 40, 1},
		"the longest of two":      {[]try{served(0), lost(20), served(40), lost(60), lost(80), served(100)}, 110, 60, 2},
		"recorded out of order":   {[]try{served(40), lost(20), served(0)}, 50, 40, 1},
		"lost until the end":      {[]try{served(0), lost(20), lost(40)}, 60, 60, 2},
		"lost from the beginning": {[]try{lost(0), lost(20), served(40)}, 50, 40, 2},
		"nobody tried":            {nil, 50, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := result(c.tries, at(c.end))
			if got.Gap != time.Duration(c.want)*time.Millisecond || got.Lost != c.lost {
				t.Errorf("the gap is %s with %d lost in a row, want %d ms with %d", got.Gap, got.Lost, c.want, c.lost)
			}
		})
	}
}
