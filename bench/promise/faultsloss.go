//go:build linux

package promise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// changes returns faults that are operators' changes.
func changes() []fault {
	grow := func(ctx context.Context, r *rig) error {
		r.setup.controls = 3
		for _, h := range append(controls(), append(edges(), hostDNS)...) {
			if err := r.configure(h); err != nil {
				return err
			}
		}
		r.process("c1").Stop(syscall.SIGTERM, 10*second)
		if err := r.startAll(controls()...); err != nil {
			return err
		}
		for _, h := range append(edges(), hostDNS) {
			if err := world.Pause(ctx, 2*second); err != nil {
				return err
			}
			r.process(h).Stop(syscall.SIGTERM, 10*second)
			if err := r.start(h); err != nil {
				return err
			}
		}
		return nil
	}
	// rename gives the site another name on some hosts. The credential of e2 is for www.
	rename := func(site string, hosts ...string) step {
		return func(_ context.Context, r *rig) error {
			for _, h := range hosts {
				r.sites[h] = site
				if err := errors.Join(r.configure(h), r.signal(syscall.SIGHUP, h)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	clone := func(ctx context.Context, r *rig) error {
		r.kill("e2")
		if err := copyFolder(r.folder("e2"), r.folder(hostClone)); err != nil {
			return err
		}
		// The one that starts later must be refused.
		if err := in(starting("e2"), waiting(4*second), starting(hostClone))(ctx, r); err != nil {
			return err
		}
		// By then, it is the one whose lease isn't read.
		if err := world.Pause(ctx, 5*second); err != nil {
			return err
		}
		return r.cut(true, []string{hostClone}, controls())
	}
	return []fault{
		{name: "grow", title: "one control node becomes three by an edited fleet file", setup: setup{controls: 1},
			begin: grow, hold: 6 * second, heal: nothing},
		{name: "rename-site", title: "a site is renamed, and an edge has a credential for its old name",
			setup: setup{credential: true}, begin: rename("web", edges()...), hold: 8 * second,
			heal: rename("www", edges()...)},
		{name: "rename-site-in-part", title: "the same, and that edge has the fleet file of before yet",
			setup: setup{credential: true}, begin: rename("web", "e1", "e3"), hold: 8 * second,
			heal: rename("www", "e1", "e3")},
		{name: "clone-edge", title: "two machines are the same edge", setup: setup{clone: true},
			begin: clone, hold: 8 * second, heal: in(killing(hostClone), mending)},
	}
}

// wipe deletes the data of hosts that are down.
func wipe(hosts ...string) step {
	return func(_ context.Context, r *rig) error {
		for _, h := range hosts {
			if err := errors.Join(os.RemoveAll(r.folder(h)), os.MkdirAll(r.folder(h), 0o700)); err != nil {
				return err
			}
		}
		return nil
	}
}

// dropping deletes a part of the data of a host that is down.
func dropping(host, part string) step {
	return func(_ context.Context, r *rig) error { return os.RemoveAll(filepath.Join(r.folder(host), part)) }
}

// outgrowing purges the quiet objects, and then others until the log has more entries than it had
// when it was backed up. So a log that uses sequences twice looks complete, and an edge that was
// away never gets the first purges.
func outgrowing(ctx context.Context, r *rig) error {
	want := r.check.acknowledged() + 20
	of := slices.Concat(r.objects[len(r.objects)-quietGroups*inGroup:], floodObjects())
	for n, end := 0, time.Now().Add(30*second); n < want && time.Now().Before(end); {
		o, wait := of[min(n, quietGroups*inGroup)], time.Duration(0)
		if n < quietGroups*inGroup {
			wait = 300 * time.Millisecond
		}
		if _, err := r.purge(ctx, purgeRequest{URLs: []string{urlOf(o.path)}}, "URL "+o.path, "e1", []object{o},
			wait); err == nil {
			n++
		} else if err := world.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// losses returns losses of disks and power.
func losses() []fault {
	backup := func(hosts ...string) step { // while they are down, like a file system's snapshot
		return func(_ context.Context, r *rig) error {
			for _, h := range hosts {
				if err := copyFolder(r.folder(h), filepath.Join(r.dir, h, "backup")); err != nil {
					return err
				}
			}
			return nil
		}
	}
	restore := func(hosts ...string) step {
		return func(_ context.Context, r *rig) error {
			for _, h := range hosts {
				if err := copyFolder(filepath.Join(r.dir, h, "backup"), r.folder(h)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	away := isolating("e3")
	old := func(hosts ...string) step {
		return in(killing(hosts...), backup(hosts...), starting(hosts...), waiting(8*second), away, killing(hosts...),
			restore(hosts...), starting(hosts...), outgrowing)
	}
	power := func(hosts ...string) step {
		return func(ctx context.Context, r *rig) error { return r.powerLoss(ctx, hosts...) }
	}
	again := func(hosts ...string) step {
		once := in(power(hosts...), starting(hosts...), waiting(3*second))
		return in(once, once, once)
	}
	fill := func(host string) step { return func(_ context.Context, r *rig) error { return r.fill(host) } }
	unfill := func(host string) step { return func(_ context.Context, r *rig) error { return r.unfill(host) } }
	return []fault{
		{name: "wipe-control", title: "a control node loses its disk",
			begin: in(killing("c1"), wipe("c1"), waiting(2*second), starting("c1")), hold: 6 * second, heal: nothing},
		{name: "wipe-two-controls",
			title: "two of three control nodes lose their disks; later the third one's is removed too",
			begin: in(killing("c1", "c2"), wipe("c1", "c2"), waiting(second), starting("c1", "c2")), hold: 8 * second,
			heal: in(killing(controls()...), wipe(controls()...), starting(controls()...))},
		{name: "wipe-two-controls-only",
			title: "two of three control nodes lose their disks while an edge is away, and come back with none",
			begin: in(away, killing("c1", "c2"), wipe("c1", "c2"), starting("c1", "c2")), hold: 8 * second,
			heal: in(mending, waiting(5*second), killing(controls()...), wipe(controls()...),
				starting(controls()...))},
		{name: "backup-one", title: "an old backup of one control node is put back while an edge is away",
			begin: old("c1"), hold: 5 * second, heal: mending},
		{name: "backup-all", title: "an old backup of all control nodes is put back while an edge is away",
			begin: old(controls()...), hold: 5 * second, heal: mending},
		{name: "purge-records", title: "an edge loses its purge records, and not its objects",
			begin: in(killing("e1"), dropping("e1", "purges"), waiting(second), starting("e1")), hold: 6 * second,
			heal: nothing},
		{name: "purge-records-down", title: "an edge loses its purge records while the control plane is away",
			begin: in(killing(controls()...), killing("e1"), dropping("e1", "purges"), starting("e1")),
			hold:  8 * second, heal: starting(controls()...)},
		{name: "power-edges-new", title: "all edges lose power in the first seconds of their lives",
			setup: setup{ownDisk: edges()}, begin: again(edges()...), hold: 2 * second, heal: nothing},
		{name: "power-edge", title: "an edge loses power", setup: setup{ownDisk: []string{"e1"}},
			begin: in(waiting(4*second), power("e1"), waiting(2*second), starting("e1")), hold: 4 * second,
			heal: nothing},
		{name: "power-controls", title: "all control nodes lose power, again and again",
			setup: setup{ownDisk: controls()}, begin: again(controls()...), hold: 2 * second, heal: nothing},
		{name: "power-all", title: "all machines of the fleet lose power",
			setup: setup{ownDisk: append(edges(), controls()...)},
			begin: in(power(append(edges(), controls()...)...), starting(append(controls(), edges()...)...)),
			hold:  4 * second, heal: nothing},
		{name: "disk-full-control", title: "the disk of the only control node is full for 15 s",
			setup: setup{controls: 1, ownDisk: []string{"c1"}}, begin: fill("c1"), hold: 15 * second,
			heal: unfill("c1")},
		{name: "disk-full-one", title: "the disk of one of three control nodes is full for 15 s",
			setup: setup{ownDisk: []string{"c2"}}, begin: fill("c2"), hold: 15 * second, heal: unfill("c2")},
		{name: "disk-full-all", title: "the disks of all control nodes are full for 15 s",
			setup: setup{ownDisk: controls()}, begin: in(fill("c1"), fill("c2"), fill("c3")), hold: 15 * second,
			heal: in(unfill("c1"), unfill("c2"), unfill("c3"))},
	}
}

// loads returns faults by load.
func loads() []fault {
	big := func(ctx context.Context, r *rig) error {
		var q purgeRequest
		for n := range 30_000 { // 3 MB
			q.URLs = append(q.URLs, urlOf("/none/"+strings.Repeat("x", 70)+time.Duration(n).String()))
		}
		of := r.objects[:inGroup]
		for _, o := range of {
			q.URLs = append(q.URLs, urlOf(o.path))
		}
		if _, err := r.purge(ctx, q, "30,000 URLs", "e1", of, 0); err != nil {
			r.check.refuse(shorten(err.Error()))
		}
		return nil
	}
	slow := setup{delay: 2 * second, readers: 16, groups: 2}
	return []fault{
		{name: "slow-origin", title: "the origin takes 2 s for each answer", setup: slow,
			begin: nothing, hold: 15 * second, heal: slowing(0)},
		{name: "slow-origin-pauses", title: "the origin takes 2 s, and control nodes stand still for 2 s at times",
			setup: slow, begin: func(ctx context.Context, r *rig) error {
				once := in(signalling(syscall.SIGSTOP, controls()...), waiting(2*second),
					signalling(syscall.SIGCONT, controls()...), waiting(2*second))
				return in(once, once, once)(ctx, r)
			}, heal: slowing(0)},
		{name: "overtaken", title: "a purge overtakes a slow fetch, while all segments are replaced",
			setup: setup{disk: "64MiB"}, begin: overtaken, hold: 4 * second, heal: nothing},
		{name: "slow-line", title: "a purge of 3 MB reaches an edge over 512 KB/s",
			setup: setup{line: world.Line{Up: 512 << 13, Down: 512 << 13, Queue: second}},
			begin: big, hold: 10 * second, heal: nothing},
		{name: "big-tag", title: "a purge has a tag of 70 KB",
			begin: poison(func(q *purgeRequest, s string) { q.Tags = []string{s} }), hold: 6 * second, heal: nothing},
		{name: "big-url", title: "a purge has a URL of 70 KB",
			begin: poison(func(q *purgeRequest, s string) { q.URLs = []string{urlOf("/" + s)} }), hold: 6 * second,
			heal: nothing},
		{name: "big-prefix", title: "a purge has a prefix of 70 KB",
			begin: poison(func(q *purgeRequest, s string) { q.Prefixes = []string{urlOf("/" + s)} }),
			hold:  6 * second, heal: nothing},
		{name: "flood", title: "10,000 purges as fast as the fleet takes them", begin: flood, hold: second,
			heal: nothing},
	}
}

// slowing delays each answer of the origin.
func slowing(by time.Duration) step {
	return func(_ context.Context, r *rig) error {
		r.origin.slow(by)
		return nil
	}
}

// poison sends a purge with a value of 70,000 bytes, which must be refused.
func poison(field func(*purgeRequest, string)) step {
	return func(ctx context.Context, r *rig) error {
		var q purgeRequest
		field(&q, strings.Repeat("x", 70_000))
		if _, err := r.purge(ctx, q, "70,000 bytes", "e1", nil, 0); err != nil {
			r.check.refuse(shorten(err.Error()))
		}
		return nil
	}
}

// overtaken purges what an edge is fetching, and then fills that edge's disk with other objects.
func overtaken(ctx context.Context, r *rig) error {
	const host, fetch, times = "e3", 20 * second, 3
	slow := r.objects[0]
	r.origin.slowPath(slow.path, fetch)
	if _, err := r.purge(ctx, purgeRequest{URLs: []string{urlOf(slow.path)}}, "URL "+slow.path, host, []object{slow},
		2*second); err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	x := r.newReader(host)
	defer x.close()
	x.client.Timeout = fetch + readLimit
	all.Go(func() {
		if x.read(ctx, slow, r.check.answered) != nil {
			r.check.failed()
		}
	})
	if err := world.Pause(ctx, second); err != nil {
		return err
	}
	r.origin.slowPath(slow.path, 0) // for requests from now on
	if _, err := r.purge(ctx, purgeRequest{URLs: []string{urlOf(slow.path)}}, "URL "+slow.path, host, []object{slow},
		2*second); err != nil {
		return err
	}
	for k := range 4 {
		all.Go(func() {
			y := r.newReader(host)
			defer y.close()
			for n, end := k, time.Now().Add(fetch-3*second); n < times*(64<<20)/ballastSize &&
				time.Now().Before(end); n += 4 {
				y.fetch(ctx, ballast+strconv.Itoa(n))
			}
		})
	}
	return nil
}

// flood sends 10,000 purges, for half a minute at most.
func flood(ctx context.Context, r *rig) error {
	const purges, at = 10_000, 24
	end := time.Now().Add(30 * second)
	all := floodObjects()
	done := make(chan error, at)
	for k := range at {
		go func() {
			via := edges()[k%3]
			for n := k; n < purges && time.Now().Before(end); n += at {
				o := all[n%len(all)]
				if _, err := r.purge(ctx, purgeRequest{URLs: []string{urlOf(o.path)}}, "URL "+o.path, via,
					[]object{o}, 0); err != nil {
					r.check.refuse(shorten(err.Error()))
				}
			}
			done <- nil
		}()
	}
	for range at {
		<-done
	}
	return ctx.Err()
}

// clocks returns faults of clocks that step, and step back.
func clocks() []fault {
	step := func(by time.Duration, hosts ...string) step {
		return func(_ context.Context, r *rig) error {
			var err error
			for _, h := range hosts {
				err = errors.Join(err, r.process(h).StepClock(by))
			}
			return err
		}
	}
	var all []fault
	for _, c := range []struct {
		name string
		by   time.Duration
	}{{"clock+30s", 30 * second}, {"clock-30s", -30 * second}, {"clock+1h", time.Hour}, {"clock-1h", -time.Hour}} {
		all = append(all, fault{name: c.name,
			title: "the clocks of an edge and a control node step by " + c.by.String() + ", and back",
			begin: in(step(c.by, "e1", "c1"), waiting(6*second), step(0, "e1", "c1")),
			hold:  3 * second, heal: nothing})
	}
	return append(all, fault{name: "clock-1h-cut", title: "the clock of an edge that is cut off steps back by 1h",
		begin: in(isolating("e1"), waiting(4*second), step(-time.Hour, "e1")),
		hold:  long, heal: in(step(0, "e1"), mending)})
}
