//go:build real

package edge

import "testing"

// TestRealManyFollowers is TestManyFollowersOfOneFill in full size: 16 GiB to clients.
func TestRealManyFollowers(t *testing.T) { followFill(t, 64<<20) }
