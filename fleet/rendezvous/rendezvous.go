// Package rendezvous is weighted rendezvous hashing (Thaler and Ravishankar 1998, weights by
// Schindelhauer and Schomaker 2005). Each member draws a number for a key, and the member with the
// highest score gets the key. Members get keys in proportion to their weights. When a member comes
// or goes, only its own keys move.
//
// What a version chooses must be what the previous one chose: otherwise an upgrade moves keys.
package rendezvous

import "math"

// Draw returns the number that a member draws for a key, in the open interval (0, 1). key and
// member are hashes.
func Draw(key, member uint64) float64 { return scale(Mix(key ^ member)) }

// scale maps bits to the open interval (0, 1). The highest value would be rounded to 1, whose
// logarithm is 0.
func scale(bits uint64) float64 { return min((float64(bits>>11)+0.5)/(1<<53), 1-0x1p-53) }

// Score returns the score of a draw for a member's weight, which is above 0.
func Score(draw, weight float64) float64 { return weight / -math.Log(draw) }

// Beats reports whether a draw for a weight has a higher score than another one. It takes no
// logarithm if the weights are equal.
func Beats(draw, weight, otherDraw, otherWeight float64) bool {
	if weight == otherWeight {
		return draw > otherDraw
	}
	return weight*math.Log(otherDraw) < otherWeight*math.Log(draw)
}

// Mix spreads the bits of x over all bits of the result. It is the finalizer of SplitMix64.
func Mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
