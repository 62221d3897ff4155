//go:build real

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaiku-cdn/kaiku/fleet/testwait"
	"github.com/kaiku-cdn/kaiku/geodns"
)

// The test measures the time from `kaiku init` to the first hit over HTTPS at the nearest edge. The
// fleet is that of README.md, with three nodes, on machines without Kaiku. `make first-hit` prints
// the time.
func TestRealFirstHit(t *testing.T) {
	if !inWorld() {
		runInWorld(t)
		return
	}
	l := newLab(t)
	l.addMachines(t)
	dir := filepath.Join(l.dir, "fleet")
	config := filepath.Join(dir, "fleet.yaml")
	began := time.Now()
	last := began
	var steps []string
	done := func(step string) {
		now := time.Now()
		steps = append(steps, fmt.Sprintf("%6.1f s  %s", now.Sub(last).Seconds(), step))
		last = now
	}
	l.kaiku(t, "init", "--domain", "example.com", "--origin", "https://"+labOrigin, "--email", "ops@example.com",
		"--dir", dir,
		"--node", "hel1=203.0.113.10@60.17,24.94", "--node", "fra1=192.0.2.30@50.11,8.68", "--node",
		"nyc1=198.51.100.20@40.71,-74.01")
	l.kaiku(t, "check", "--config", config)
	done("init, check")
	deploy := l.command("deploy", "--config", config, "--accept-new-host-keys")
	told := &timedLines{began: began}
	deploy.Stderr = told
	if err := deploy.Run(); err != nil {
		t.Fatalf("deploy: %v\n%s", err, told)
	}
	done("deploy to three machines, until all are healthy")

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(l.roots))
	addr := ""
	client := &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addr+":443")
			}}}
	get := func() (cache string, err error) {
		addrs, err := geodns.Lookup(t.Context(), labNodes[0][1]+":53", "www.example.com",
			netip.MustParsePrefix("193.166.3.0/24"))
		if err != nil {
			return "", err
		}
		addr = addrs[0].String()
		resp, err := client.Get("https://www.example.com/")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "index.html") {
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		return resp.Header.Get("Cache-Status"), err
	}
	var cache string
	var err error
	testwait.Until(t, "an edge answers over HTTPS", func() bool {
		cache, err = get()
		return err == nil
	})
	done("certificate, and first answer, from " + addr + ": " + cache)
	testwait.Until(t, "the nearest edge answers with a hit", func() bool {
		cache, err = get()
		return err == nil && addr == labNodes[0][1] && strings.Contains(cache, "; hit")
	})
	done("first hit, from " + addr + ": " + cache)
	t.Logf("first hit after %.1f s:\n%s\nwhat deploy told:\n%s", time.Since(began).Seconds(), strings.Join(steps, "\n"),
		told)
}

// timedLines records when each piece of output was written.
type timedLines struct {
	strings.Builder
	began time.Time
}

// Write records a piece of output.
func (l *timedLines) Write(p []byte) (int, error) {
	fmt.Fprintf(&l.Builder, "%6.1f s  %s", time.Since(l.began).Seconds(), p)
	return len(p), nil
}
