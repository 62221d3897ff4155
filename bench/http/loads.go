package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed wrk.lua
var wrkScript []byte

// wrk loads a peer over HTTP/1.1 with wrk.
func (b *bench) wrk(ctx context.Context, i *instance, c testCase) (o outcome, err error) {
	script := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(script, wrkScript, 0o644); err != nil {
		return o, err
	}
	mode, first := c.How, int64(0)
	switch c.How {
	case churn:
		mode = each
	case fresh, cold:
		mode, first = fresh, b.fresh
	case pass:
		mode, first = fresh, unstoredFrom+b.fresh
	}
	url := i.url(c.Proto, object{})
	url = url[:strings.Index(url, "/0/")]
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c", strconv.Itoa(c.Conns), "-d",
		strconv.Itoa(int(b.length.Seconds()))+"s", "--timeout", "10s", "-s", script, url+"/",
		"--", string(mode), strconv.FormatInt(c.Size, 10), strconv.Itoa(c.Count), strconv.FormatInt(first, 10),
		c.Fields).CombinedOutput()
	if err != nil {
		return o, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var said struct{ Requests, Bytes, Microseconds, P50, P99, Status, Failed int64 }
	if err := json.Unmarshal(lines[len(lines)-1], &said); err != nil {
		return o, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	if said.Status+said.Failed > 0 {
		return o, fmt.Errorf("wrk: %d responses of status 400 or above, %d requests failed", said.Status, said.Failed)
	}
	micros := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
	return outcome{int(said.Requests), said.Bytes, micros(said.Microseconds), micros(said.P50), micros(said.P99)}, nil
}

var (
	h2Done   = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Status = regexp.MustCompile(`status codes: (\d+) 2xx`)
	h2Bytes  = regexp.MustCompile(`traffic: .* \((\d+)\) data`)
)

// h2load loads a peer over HTTP/2 with h2load.
func (b *bench) h2load(ctx context.Context, i *instance, c testCase) (o outcome, err error) {
	urls, log := filepath.Join(b.dir, "urls"), filepath.Join(b.dir, "h2load.log")
	var all strings.Builder
	for n := range c.Count {
		fmt.Fprintln(&all, i.url(c.Proto, object{c.Size, int64(n * 7919 % c.Count)}))
	}
	if err := os.WriteFile(urls, []byte(all.String()), 0o644); err != nil {
		return o, err
	}
	_ = os.Remove(log)
	began := time.Now()
	out, err := exec.CommandContext(ctx, "h2load", "-t1", "-c", strconv.Itoa(c.Conns), "-m", strconv.Itoa(c.Streams),
		"-D", strconv.Itoa(int(b.length.Seconds())),
		"-i", urls, "--log-file="+log, "--connect-to="+net.JoinHostPort("127.0.0.1", i.TLSPort)).CombinedOutput()
	if err != nil {
		return o, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	o.Took = time.Since(began)
	done, status, size := h2Done.FindSubmatch(out), h2Status.FindSubmatch(out), h2Bytes.FindSubmatch(out)
	if done == nil || status == nil || size == nil || !bytes.Contains(out, []byte("Application protocol: h2")) {
		return o, fmt.Errorf("h2load said something else:\n%s", out)
	}
	o.Requests, _ = strconv.Atoi(string(done[1]))
	o.Bytes, _ = strconv.ParseInt(string(size[1]), 10, 64)
	if ok, _ := strconv.Atoi(string(status[1])); ok < o.Requests || string(done[2]) != string(done[1]) {
		return o, fmt.Errorf("h2load: not all succeeded:\n%s", out)
	}
	o.Bytes = min(o.Bytes, int64(o.Requests)*(c.Body+c.Body/100+1000)) // h2load counts bodies cut short at the end
	o.P50, o.P99, err = h2Latency(log)
	return o, err
}

// h2Latency reads h2load's log. Each line has the time, the status and the duration of a request
// in µs.
func h2Latency(log string) (p50, p99 time.Duration, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var took []time.Duration
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[1] != "200" {
			continue
		}
		us, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		took = append(took, time.Duration(us)*time.Microsecond)
	}
	p50, p99 = percentiles(took)
	return p50, p99, nil
}

func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100]
}
