package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The page of a node that is reached over SSH opens at an address of this machine.
func TestDashboardOverSSH(t *testing.T) {
	f := newOperated(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"dashboard", "nyc1", "--config", f.config, "--token-file", f.dir + "/admin.token",
			"--no-browser"}, write, io.Discard)
		write.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewScanner(read)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "http://127.0.0.1:") {
		t.Fatalf("it prints %q, and ends with %v", lines.Text(), <-done)
	}
	address := lines.Text()
	for _, want := range []string{"Sign in with the token in " + f.dir + "/admin.token.", "This forwards to nyc1."} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Errorf("it prints %q, want %q", lines.Text(), want)
		}
	}
	for path, want := range map[string]string{"": "<title>Kaiku</title>", "v1/session": "the admin token"} {
		resp, err := http.Get(address + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s%s: %.200s, %v", address, path, text, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Only this machine may use the forwarded port.
func TestDashboardListensOnLoopback(t *testing.T) {
	f := newOperated(t)
	_, err := command(t, "dashboard", "hel1", "--config", f.config, "--token-file", f.dir+"/admin.token", "--listen",
		"0.0.0.0:0", "--no-browser")
	if err == nil || exitCode(err) != 2 {
		t.Errorf("got %v, want a usage error", err)
	}
}
