//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// client is the lab's side of an agent.
type client struct {
	process *world.Process

	mu      sync.Mutex
	out     *json.Encoder
	last    int
	waiting map[int]chan answer
	ended   error
}

// answer is a reply whose result is not decoded yet.
type answer struct {
	ID     int
	Error  string
	Result json.RawMessage
}

// newClient starts the client of a city.
func (l *lab) newClient(key, resolver string) (*client, error) {
	host := "client" + key
	args := append(append([]string(nil), l.client...), "-ca", filepath.Join(l.dir, "ca.pem"), "-resolver", resolver)
	p, err := l.world.Talk(host, filepath.Join(l.dir, host+".log"), args...)
	if err != nil {
		return nil, err
	}
	c := &client{process: p, out: json.NewEncoder(p.Stdin), waiting: map[int]chan answer{}}
	go c.read()
	return c, nil
}

// read passes replies to those who wait for them.
func (c *client) read() {
	d := json.NewDecoder(c.process.Stdout)
	for {
		var a answer
		err := d.Decode(&a)
		c.mu.Lock()
		if err != nil {
			c.ended = fmt.Errorf("a client ended: %w", err)
			for id, w := range c.waiting {
				close(w)
				delete(c.waiting, id)
			}
			c.mu.Unlock()
			return
		}
		if w := c.waiting[a.ID]; w != nil {
			w <- a
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
	}
}

// task is a job that a client is doing.
type task struct {
	client *client
	id     int
	reply  chan answer
}

// begin makes the client start a job.
func (c *client) begin(j job) (*task, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return nil, c.ended
	}
	c.last++
	j.ID = c.last
	t := &task{c, j.ID, make(chan answer, 1)}
	c.waiting[j.ID] = t.reply
	return t, c.out.Encode(j)
}

// wait waits for the result.
func (t *task) wait(ctx context.Context, into any) error {
	select {
	case a, ok := <-t.reply:
		if !ok {
			return t.client.ended
		}
		if a.Error != "" {
			return fmt.Errorf("a client: %s", a.Error)
		}
		return json.Unmarshal(a.Result, into)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// do makes the client do a job, and waits for the result.
func (c *client) do(ctx context.Context, j job, into any) error {
	t, err := c.begin(j)
	if err != nil {
		return err
	}
	return t.wait(ctx, into)
}

func (c *client) visit(ctx context.Context, v visit) (t timing, err error) {
	err = c.do(ctx, job{Visit: &v}, &t)
	return t, err
}

func (c *client) sweep(ctx context.Context, v sweep) (s swept, err error) {
	err = c.do(ctx, job{Sweep: &v}, &s)
	return s, err
}

// stop ends the job. The client then replies.
func (t *task) stop() error {
	t.client.mu.Lock()
	defer t.client.mu.Unlock()
	return t.client.out.Encode(job{Stop: t.id})
}
