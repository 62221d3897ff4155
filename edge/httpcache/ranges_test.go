package httpcache

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestParseRanges(t *testing.T) {
	const size = 100
	for _, c := range []struct {
		field string
		ok    bool
		want  []Range
	}{
		{"bytes=0-0", true, []Range{{0, 1}}},
		{"bytes=0-99", true, []Range{{0, 100}}},
		{"bytes=99-99", true, []Range{{99, 1}}},
		{"bytes=10-19", true, []Range{{10, 10}}},
		{"bytes=10-", true, []Range{{10, 90}}},
		{"bytes=99-", true, []Range{{99, 1}}},
		{"bytes=-1", true, []Range{{99, 1}}},
		{"bytes=-100", true, []Range{{0, 100}}},
		// Beyond the end.
		{"bytes=10-100", true, []Range{{10, 90}}},
		{"bytes=10-9999", true, []Range{{10, 90}}},
		{"bytes=-101", true, []Range{{0, 100}}},
		{"bytes=100-", true, nil},
		{"bytes=100-200", true, nil},
		{"bytes=-0", true, nil},
		// Too large for an int64.
		{"bytes=10-9223372036854775808", true, []Range{{10, 90}}},
		{"bytes=10-99999999999999999999999999", true, []Range{{10, 90}}},
		{"bytes=99999999999999999999999999-", true, nil},
		{"bytes=18446744073709551616-18446744073709551617", true, nil},
		{"bytes=-99999999999999999999999999", true, []Range{{0, 100}}},
		// Several ranges keep their order. Unsatisfiable ones are left out.
		{"bytes=0-9,20-29", true, []Range{{0, 10}, {20, 10}}},
		{"bytes=20-29,0-9,-5", true, []Range{{20, 10}, {0, 10}, {95, 5}}},
		{"bytes=0-50,25-75", true, []Range{{0, 51}, {25, 51}}},
		{"bytes=0-9,200-299", true, []Range{{0, 10}}},
		{"bytes=200-,300-", true, nil},
		{"bytes= 0-9 ,\t20-29", true, []Range{{0, 10}, {20, 10}}},
		{"bytes=,0-9,,", true, []Range{{0, 10}}},
		// RFC 9110, section 14.1: units are case-insensitive.
		{"BYTES=0-9", true, []Range{{0, 10}}},

		// Fields that must be ignored.
		{"", false, nil},
		{"bytes", false, nil},
		{"bytes=", false, nil},
		{"bytes=,", false, nil},
		{"bytes=-", false, nil},
		{"bytes=5", false, nil},
		{"bytes=a-b", false, nil},
		{"bytes=0x0-9", false, nil},
		{"bytes=+0-9", false, nil},
		{"bytes=0-+9", false, nil},
		{"bytes=--5", false, nil},
		{"bytes=0--5", false, nil},
		{"bytes=0-9-", false, nil},
		{"bytes=0 - 9", false, nil},
		{"bytes=1.0-9", false, nil},
		{"bytes=9-5", false, nil},
		{"bytes=9-5,0-3", false, nil},
		{"bytes=0-3,x", false, nil},
		{"bytes=0-3;5-9", false, nil},
		{"bytes:0-9", false, nil},
		{"lines=0-9", false, nil},
		{"bytesx=0-9", false, nil},
		{"=0-9", false, nil},
		{"seconds=0-9", false, nil},
		{"bytes=" + strings.Repeat("0-0,", maxRanges+1), false, nil},
	} {
		got, ok := ParseRanges(c.field, size)
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("ParseRanges(%q) = %v, %v, want %v, %v", c.field, got, ok, c.want, c.ok)
		}
	}
	if got, ok := ParseRanges("bytes="+strings.Repeat("0-0,", maxRanges), size); !ok || len(got) != maxRanges {
		t.Errorf("%d ranges: %v, %v", maxRanges, got, ok)
	}
	if got, ok := ParseRanges("bytes=0-", 0); !ok || len(got) != 0 {
		t.Errorf("of an empty body: %v, %v", got, ok)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-5", "bytes=0-0,-1,5-",
		"bytes=9223372036854775807-", "bytes=-9223372036854775808",
		"bytes=4611686018427387904-4611686018427387905", "bytes=,", "lines=1-2"} {
		f.Add(s, int64(10))
	}
	f.Add("bytes=0-", int64(0))
	f.Add("bytes=-1", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, field string, size int64) {
		if size < 0 {
			t.Skip("no body has this size")
		}
		ranges, ok := ParseRanges(field, size)
		if !ok && ranges != nil || len(ranges) > maxRanges {
			t.Errorf("ParseRanges(%q, %d) = %v, %v", field, size, ranges, ok)
		}
		specs := make([]string, 0, len(ranges))
		for _, r := range ranges {
			if r.Start < 0 || r.Length < 1 || r.Start > size-r.Length {
				t.Fatalf("ParseRanges(%q, %d) has %+v, which is outside", field, size, r)
			}
			specs = append(specs, fmt.Sprintf("%d-%d", r.Start, r.Start+r.Length-1))
		}
		// Positions from 2^58 on count as past the end, which only matters for a body of that size.
		if len(ranges) > 0 && size < 1<<58 {
			if again, ok := ParseRanges("bytes="+strings.Join(specs, ","), size); !ok || !slices.Equal(again, ranges) {
				t.Errorf("ParseRanges(%q, %d) = %v, and those again %v, %v", field, size, ranges, again, ok)
			}
		}
	})
}
