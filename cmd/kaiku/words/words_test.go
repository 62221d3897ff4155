package words

import (
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := strings.Fields("name hosts origin cache https max_connections access_log")
	for word, want := range map[string]string{"orgin": "origin", "origins": "origin", "oirgin": "origin",
		"Origin": "origin", "host": "hosts", "chache": "cache", "maxConnections": "max_connections",
		"max-connection": "max_connections", "acess_log": "access_log", "cert": "", "x": "", "": "", "tls": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Nearest("nyc", []string{"hel1", "nyc1"}); got != "nyc1" {
		t.Errorf("nyc: %q", got)
	}
	if !slices.Equal([]int{mistakes("", "abc"), mistakes("abc", ""), mistakes("ca", "ac"),
		mistakes("kitten", "sitting")}, []int{3, 3, 1, 3}) {
		t.Error("distances are wrong")
	}
}
