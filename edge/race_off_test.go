//go:build !race

package edge

// raced reports whether the race detector is on.
const raced = false
