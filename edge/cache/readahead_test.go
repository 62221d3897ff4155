package cache

import (
	"strconv"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/ttlset"
)

// TestReadersAreForgotten fills what is known of readers with keys.
func TestReadersAreForgotten(t *testing.T) {
	var all readers
	for i := range maxReads + 1000 {
		all.add(httpcache.Key(strconv.Itoa(i)), 1, 0)
	}
	all.add(httpcache.Key(strconv.Itoa(maxReads+999)), 1, 0)
	if got := all.get(httpcache.Key(strconv.Itoa(maxReads + 999))).sent; got != 2 || len(all.m) > maxReads {
		t.Errorf("%d keys are known, and of the last %d bytes", len(all.m), got)
	}
	now := time.Now()
	all.cantJoin("a", 10, now)
	if all.get("a").unjoinable(now) != 10 || all.get("a").unjoinable(now.Add(ttlset.TTL+1)) != 0 ||
		all.get("b").unjoinable(now) != 0 {
		t.Error("what can't be joined is not known, or for too long")
	}
}
