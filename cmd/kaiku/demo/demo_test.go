package demo

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// TestDemo runs the demo on free ports, and sends requests as the Finnish and the US client.
func TestDemo(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	d, err := newDemo(t.Context(), t.TempDir(), &ports{}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = d.run(ctx, io.Discard, func(ctx context.Context) error {
		defer cancel()
		playClients(ctx, t, d)
		playPurge(ctx, t, d)
		playLostEdge(ctx, t, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func playClients(ctx context.Context, t *testing.T, d *demo) {
	var visits []visit
	for _, v := range theVisitors() {
		got, err := d.visit(ctx, v)
		if err != nil {
			t.Fatalf("%s: %v", v.country, err)
		}
		visits = append(visits, got)
	}
	var table bytes.Buffer
	if err := report(&table, visits); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Finland", "hel1", "USA", "nyc1", "miss", "hit", " 1\n"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, table.String())
		}
	}
}

// playPurge purges at hel1: both edges ask the origin again.
func playPurge(ctx context.Context, t *testing.T, d *demo) {
	hel := d.nodes["hel1"]
	resp, err := http.Post("http://"+hel.Admin+"/v1/purge", "application/json",
		strings.NewReader(`{"urls": ["http://www.example.com/img/dawn.png"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Fatalf("purge: %s", resp.Status)
	}
	for node, want := range map[string]string{"hel1": "fwd=uri-miss", "nyc1": "fwd=uri-miss"} {
		_, got, err := firstByte(ctx, (&net.Dialer{}).DialContext, d.nodes[node].HTTP, "/img/dawn.png", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s after the purge: %s", node, got)
		}
	}
}

// playLostEdge stops hel1 by the demo's own API: the Finnish client gets nyc1 until it is back.
func playLostEdge(ctx context.Context, t *testing.T, d *demo) {
	for _, step := range []struct{ do, want string }{{"stop", "127.0.0.12"}, {"start", "127.0.0.11"}} {
		resp, err := http.Post("http://"+d.control.Addr().String()+"/"+step.do+"/hel1", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", step.do, resp.Status)
		}
		for {
			addrs, err := geodns.Lookup(ctx, d.dnsAddr, siteHost, netip.MustParsePrefix(finnishNetwork))
			if err != nil {
				t.Fatal(err)
			}
			if addrs[0].String() == step.want {
				break
			}
		}
	}
}
