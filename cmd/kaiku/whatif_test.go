package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kaiku-cdn/kaiku/storage"
)

func TestPrintWhatIf(t *testing.T) {
	r := storage.WhatIf{Sampled: 1.0 / 64, Requests: 1e6}
	for i, hits := range []float64{0.5, 0.6, 0.7, 0.8, 0.9} {
		r.Disk = append(r.Disk, storage.WhatIfBudget{Bytes: 25 << 30 << i, Hits: hits, Saved: hits / 2,
			Missed: (1 - hits) * 1e12})
	}
	var out bytes.Buffer
	if err := printWhatIf(&out, &r, "282.843GiB", ""); err == nil {
		t.Error("a size with a fraction is accepted")
	}
	out.Reset()
	if err := printWhatIf(&out, &r, "3x", ""); err != nil {
		t.Fatal(err)
	}
	want := `1000000 requests, of which 1 in 64 objects is simulated
disk           hits    of bytes  missed a day
25GiB   0.25x  50.0 %  25.0 %    466GiB
50GiB   0.5x   60.0 %  30.0 %    373GiB
100GiB  1x     70.0 %  35.0 %    279GiB
200GiB  2x     80.0 %  40.0 %    186GiB
400GiB  4x     90.0 %  45.0 %    93GiB
300GiB  3x     85.8 %  42.9 %    132GiB
`
	if out.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), want)
	}
	if err := printWhatIf(&out, &r, "1TiB", ""); err == nil || !strings.Contains(err.Error(), "--disk") {
		t.Errorf("1TiB: %v", err)
	}
}

func TestWhatIfRefuses(t *testing.T) {
	for _, args := range [][]string{{"--disk", "5x"}, {"--disk", "large"}, {"--memory", "NaNx"}, {"--memory", "0.1x"},
		{"more"}} {
		if _, err := command(t, append([]string{"what-if"}, args...)...); exitCode(err) != 2 || err == nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
