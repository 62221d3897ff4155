package httpcache

import (
	"fmt"
	"reflect"
	"testing"
)

func TestParseContentRange(t *testing.T) {
	for text, want := range map[string]string{
		"bytes 0-4/10": "{0 5} 10 true", "bytes 5-9/10": "{5 5} 10 true", "BYTES 0-0/1": "{0 1} 1 true",
		"bytes 5-4/10": "", "bytes 0-10/10": "", "bytes 0-4/*": "", "bytes */10": "", "lines 0-4/10": "",
		"bytes=0-4/10": "", "0-4/10": "", "": "",
		"bytes 0-4/10, bytes 5-9/10": "", "bytes -4/10": "",
	} {
		if want == "" {
			want = "{0 0} 0 false"
		}
		part, size, ok := ParseContentRange(header("Content-Range: " + text))
		if got := fmt.Sprint(part, size, ok); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestPlan(t *testing.T) {
	fragments := []Fragment{{Range{10, 10}, "a"}, {Range{15, 10}, "b"}, {Range{40, 5}, "c"}}
	for _, c := range []struct {
		want Range
		plan []Piece
	}{
		{Range{12, 3}, []Piece{{Range{12, 3}, "a", 10}}},
		{Range{10, 15}, []Piece{{Range{10, 10}, "a", 10}, {Range{20, 5}, "b", 15}}},
		{Range{0, 50}, []Piece{{Range{0, 10}, "", 0}, {Range{10, 10}, "a", 10}, {Range{20, 5}, "b", 15},
			{Range{25, 15}, "", 0},
			{Range{40, 5}, "c", 40}, {Range{45, 5}, "", 0}}},
		{Range{30, 5}, []Piece{{Range{30, 5}, "", 0}}},
		{Range{30, 0}, nil},
	} {
		if got := Plan(fragments, c.want); !reflect.DeepEqual(got, c.plan) {
			t.Errorf("%v: %v, want %v", c.want, got, c.plan)
		}
	}
}

func TestSlice(t *testing.T) {
	fragments := []Fragment{{Range{10, 10}, "a"}, {Range{130, 20}, "b"}}
	for _, c := range []struct{ from, want, limit, start, length int64 }{
		{0, 100, 0, 0, 10}, {20, 100, 0, 20, 80}, {50, 100, 0, 40, 60}, {100, 100, 0, 100, 30}, {150, 100, 0, 150, 50},
		{250, 100, 270, 240, 30},
		{0, 1, 0, 0, 10}, {20, 1, 0, 20, 20}, {59, 1, 0, 40, 20}, {59, 2, 0, 40, 40}, {150, 1, 0, 150, 10}, {150, 60, 0,
			150, 50}, {265, 1, 270, 260, 10},
	} {
		if got := Slice(fragments, Range{c.from, c.want}, 20, 100, c.limit); got != (Range{c.start, c.length}) {
			t.Errorf("%d bytes from %d: %v, want {%d %d}", c.want, c.from, got, c.start, c.length)
		}
	}
}

// FuzzPlan checks that a plan covers the wanted range in order and without gaps, and stays within
// the bounds of the fragments.
func FuzzPlan(f *testing.F) {
	f.Add(int64(10), int64(10), int64(15), int64(10), int64(0), int64(50))
	f.Fuzz(func(t *testing.T, a, an, b, bn, w, wn int64) {
		for _, v := range []int64{a, an, b, bn, w, wn} {
			if v < 0 || v > 1<<40 {
				t.Skip()
			}
		}
		fragments := AddFragment([]Fragment{{Range{a, an}, "a"}}, Fragment{Range{b, bn}, "b"})
		at := w
		for _, p := range Plan(fragments, Range{w, wn}) {
			if p.Start != at || p.Length <= 0 {
				t.Fatalf("piece %v at %d", p, at)
			}
			at += p.Length
			for _, g := range fragments {
				if g.Key == p.Key && (p.Begin != g.Start || p.Start < g.Start || p.Start+p.Length > g.Start+g.Length) {
					t.Fatalf("piece %v of %v", p, g)
				}
			}
			if p.Key == "" {
				s := Slice(fragments, p.Range, 16, 64, 0)
				if s.Start > p.Start || s.Start+s.Length <= p.Start || s.Length > min(64, p.Length+30) {
					t.Fatalf("slice %v for %v", s, p)
				}
			}
		}
		if at != w+wn {
			t.Fatalf("ends at %d", at)
		}
	})
}
