package rendezvous

import (
	"math"
	"slices"
	"testing"
)

// choose returns the member with the highest score for a key, in both ways.
func choose(t *testing.T, key uint64, weights []float64) int {
	t.Helper()
	scores := make([]float64, len(weights))
	best, bestDraw := -1, 0.0
	for i, w := range weights {
		draw := Draw(Mix(key), Mix(uint64(i+1)<<32))
		if draw <= 0 || draw >= 1 {
			t.Fatalf("the draw is %v", draw)
		}
		scores[i] = Score(draw, w)
		if best < 0 || Beats(draw, w, bestDraw, weights[best]) {
			best, bestDraw = i, draw
		}
	}
	if want := slices.Index(scores, slices.Max(scores)); best != want {
		t.Fatalf("%d beats all others, but %d has the highest score of %v", best, want, scores)
	}
	return best
}

func TestSharesAreByWeight(t *testing.T) {
	const keys = 20_000
	for _, weights := range [][]float64{{1, 2, 5, 8}, {1, 1, 1}, {0.001, 1}} {
		got, sum := make([]float64, len(weights)), 0.0
		for i := range uint64(keys) {
			got[choose(t, i, weights)]++
		}
		for _, w := range weights {
			sum += w
		}
		for i, w := range weights {
			if want := w / sum; math.Abs(got[i]/keys-want) > 0.01 {
				t.Errorf("weight %v of %v gets %v of the keys, want %v", w, weights, got[i]/keys, want)
			}
		}
	}
}

// A member that comes takes keys from the others, and moves no key between them.
func TestOnlyItsOwnKeysMove(t *testing.T) {
	before, after := []float64{1, 3, 1}, []float64{1, 3, 1, 2}
	for i := range uint64(5_000) {
		if was, is := choose(t, i, before), choose(t, i, after); was != is && is != 3 {
			t.Fatalf("the key %d moves from %d to %d", i, was, is)
		}
	}
}

func TestGoldenDraws(t *testing.T) {
	for key, want := range map[uint64]float64{
		0: 0.8833108082136427, 1: 0.8939429202831846, math.MaxUint64: 0.8673452317569299,
	} {
		if got := Draw(key, 0x9e3779b97f4a7c15); got != want {
			t.Errorf("the draw for %d is %v, want %v", key, got, want)
		}
	}
	for _, bits := range []uint64{0, math.MaxUint64} {
		if got := scale(bits); got <= 0 || got >= 1 || math.IsInf(Score(got, 1), 0) {
			t.Errorf("%x makes the draw %v, with the score %v", bits, got, Score(got, 1))
		}
	}
}
