//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// agent is this program running as a client on one of the hosts.
type agent struct {
	dialer dialer
	stub   *stub // for visits: doesn't cache
	cached *stub // for visitors of a load

	mu      sync.Mutex
	out     *json.Encoder
	running map[int]context.CancelFunc
}

// runClient does the jobs that it reads, until its input ends.
func runClient(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("lab client", flag.ContinueOnError)
	ca := flags.String("ca", "", "a file of authorities to trust")
	server := flags.String("resolver", "", "the address of a resolver")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New(*ca + " has no certificate")
	}
	at := net.JoinHostPort(*server, "53")
	a := &agent{dialer: dialer{roots, "443"}, stub: &stub{server: at}, cached: &stub{server: at, cached: true},
		out: json.NewEncoder(out), running: map[int]context.CancelFunc{}}
	var jobs sync.WaitGroup
	defer jobs.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var j job
		if err := json.Unmarshal(lines.Bytes(), &j); err != nil {
			return err
		}
		if j.Stop != 0 {
			a.mu.Lock()
			if end := a.running[j.Stop]; end != nil {
				end()
			}
			a.mu.Unlock()
			continue
		}
		ctx, end := context.WithCancel(ctx)
		a.mu.Lock()
		a.running[j.ID] = end
		a.mu.Unlock()
		jobs.Go(func() {
			defer end()
			a.do(ctx, j)
		})
	}
	return lines.Err()
}

// do does a job and replies.
func (a *agent) do(ctx context.Context, j job) {
	r := reply{ID: j.ID}
	switch {
	case j.Visit != nil:
		r.Result = a.visit(ctx, *j.Visit)
	case j.Load != nil:
		r.Result = a.load(ctx, *j.Load)
	case j.Poll != nil:
		r.Result = a.poll(ctx, *j.Poll)
	case j.Sweep != nil:
		r.Result = a.sweep(ctx, *j.Sweep)
	default:
		r.Error = "a job of nothing"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, j.ID)
	_ = a.out.Encode(r) // if this fails, the lab notices that the client has ended
}

// visitLimit bounds a whole visit, including 20 MiB over a lossy ocean.
const visitLimit = time.Minute

func (a *agent) visit(ctx context.Context, v visit) (t timing) {
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	began := time.Now()
	since := func() float64 { return float64(time.Since(began)) / float64(time.Millisecond) }
	fail := func(err error) timing {
		t.Err = err.Error()
		return t
	}
	addrs := []string{v.Addr}
	if v.Addr == "" {
		var err error
		if addrs, err = a.stub.lookup(ctx, v.Host); err != nil {
			return fail(err)
		}
	}
	t.Lookup, t.Addr = since(), addrs[0]
	s, err := a.dialer.open(ctx, v.Proto, t.Addr, v.Host)
	if err != nil {
		return fail(err)
	}
	defer s.close()
	t.Connect = since()
	resp, err := get(ctx, s, v.Host, v.Paths[0])
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	t.Cache, _, _ = strings.Cut(resp.Header.Get("Cache-Status"), ",")
	var first [1]byte
	if _, err := io.ReadFull(resp.Body, first[:]); err != nil {
		return fail(err)
	}
	t.First = since()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return fail(err)
	}
	if v.Size != 0 && int(n)+1 != v.Size {
		return fail(errors.New("the body is cut short"))
	}
	if err := a.rest(ctx, v, s, t.Addr); err != nil {
		return fail(err)
	}
	t.Last = since()
	return t
}

// connsH1 is how many connections a browser opens to an HTTP/1.1 server.
const connsH1 = 6

// rest requests what a page embeds: all at once on one connection, or with HTTP/1.1 on six
// connections, including the first one.
func (a *agent) rest(ctx context.Context, v visit, s session, addr string) error {
	paths := v.Paths[1:]
	todo := make(chan string, len(paths))
	for _, p := range paths {
		todo <- p
	}
	close(todo)
	workers := len(paths)
	if v.Proto == "h1" {
		workers = min(workers, connsH1)
	}
	errs := make(chan error, workers)
	for n := range workers {
		go func() {
			mine := s
			if v.Proto == "h1" && n > 0 {
				var err error
				if mine, err = a.dialer.open(ctx, v.Proto, addr, v.Host); err != nil {
					errs <- err
					return
				}
				defer mine.close()
			}
			for path := range todo {
				resp, err := get(ctx, mine, v.Host, path)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-errs)
	}
	return err
}

// get requests one object, and fails unless the status is 200.
func get(ctx context.Context, s session, host, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.ask(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(path + ": " + resp.Status + " " + resp.Header.Get("Cache-Status"))
	}
	return resp, nil
}
