//go:build linux

package promise

import (
	"context"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// fault is something that fails.
type fault struct {
	name, title string
	setup       setup
	begin       func(context.Context, *rig) error
	hold        time.Duration // how long it lasts after begin has returned
	heal        func(context.Context, *rig) error
	short       bool // part of the short version
}

// step is a part of a fault.
type step = func(context.Context, *rig) error

func nothing(context.Context, *rig) error { return nil }

// in runs steps one after the other.
func in(steps ...step) step {
	return func(ctx context.Context, r *rig) error {
		for _, s := range steps {
			if err := s(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
}

func killing(hosts ...string) step {
	return func(_ context.Context, r *rig) error {
		r.kill(hosts...)
		return nil
	}
}

func starting(hosts ...string) step {
	return func(_ context.Context, r *rig) error { return r.startAll(hosts...) }
}

func signalling(s syscall.Signal, hosts ...string) step {
	return func(_ context.Context, r *rig) error { return r.signal(s, hosts...) }
}

func waiting(d time.Duration) step {
	return func(ctx context.Context, _ *rig) error { return world.Pause(ctx, d) }
}

func cutting(one, other []string) step {
	return func(_ context.Context, r *rig) error { return r.cut(true, one, other) }
}

func isolating(hosts ...string) step {
	return func(_ context.Context, r *rig) error { return r.isolate(hosts...) }
}

func mending(_ context.Context, r *rig) error { return r.mend() }

// oneWay cuts a host off from the rest of the fleet in one direction: from the host, or to it.
func oneWay(host string, from bool) step {
	return func(_ context.Context, r *rig) error {
		for _, h := range r.fleet(host) {
			a, b := h, host
			if from {
				a, b = host, h
			}
			if err := r.world.SetWay(a, b, func(l *world.Link) { l.Cut = true }); err != nil {
				return err
			}
		}
		return nil
	}
}

// leading runs do with the control node that leads the log.
func leading(do func(r *rig, leader string) error) step {
	return func(_ context.Context, r *rig) error {
		leader, err := r.leader()
		if err != nil {
			return err
		}
		return do(r, leader)
	}
}

const second = time.Second

// longer than max_disconnected
const long = 16 * second

func allFaults() []fault {
	all := []fault{{name: "none", title: "nothing goes wrong", begin: nothing, hold: 8 * second,
		heal: nothing}, several()}
	for _, part := range [][]fault{kills(), pauses(), cuts(), changes(), losses(), loads(), clocks()} {
		all = append(all, part...)
	}
	return all
}

// several is the short version: the faults that tell most, one after the other with one fleet.
func several() fault {
	return fault{name: "several",
		title: "a tag of 70 KB, lost purge records, a slow origin, a cut with the leader on the small side",
		setup: setup{disconnected: 5 * second}, short: true,
		begin: in(poison(func(q *purgeRequest, s string) { q.Tags = []string{s} }), killing("e1"),
			dropping("e1", "purges"), starting("e1"), slowing(2*second), waiting(5*second), slowing(0),
			smallSide), hold: 10 * second, heal: mending}
}

// smallSide cuts the leader and an edge off from all others.
func smallSide(ctx context.Context, r *rig) error {
	return leading(func(r *rig, leader string) error {
		r.hush("e1")
		return r.cut(true, []string{leader, "e1"}, r.fleet(leader, "e1"))
	})(ctx, r)
}

func kills() []fault {
	kill := func(name, title string, hosts ...string) fault {
		return fault{name: name, title: title, begin: killing(hosts...), hold: 6 * second, heal: starting(hosts...)}
	}
	loop := func(hosts ...string) step {
		var steps []step
		for range 4 {
			steps = append(steps, killing(hosts...), starting(hosts...), waiting(3*second))
		}
		return in(steps...)
	}
	return []fault{
		kill("kill-control", "a control node is killed", "c1"),
		kill("kill-two-controls", "two control nodes are killed", "c1", "c2"),
		kill("kill-controls", "all control nodes are killed", "c1", "c2", "c3"),
		{name: "kill-controls-long", title: "all control nodes are away for longer than max_disconnected",
			begin: killing(controls()...), hold: long, heal: starting(controls()...)},
		kill("kill-edge", "an edge is killed", "e1"),
		{name: "kill-edges-loop", title: "all edges are killed again and again", begin: loop("e1", "e2", "e3"),
			heal: nothing},
		{name: "kill-leader-loop", title: "a control node is killed again and again, another one each time",
			begin: in(killing("c1"), starting("c1"), waiting(5*second), killing("c2"), starting("c2"),
				waiting(5*second),
				killing("c3"), starting("c3"), waiting(5*second)), heal: nothing},
	}
}

func pauses() []fault {
	stop := func(name, title string, hold time.Duration, hosts ...string) fault {
		return fault{name: name, title: title, begin: signalling(syscall.SIGSTOP, hosts...), hold: hold,
			heal: signalling(syscall.SIGCONT, hosts...)}
	}
	all := []fault{
		stop("pause-edge-6s", "an edge stands still for 6 s", 6*second, "e1"),
		stop("pause-edge-20s", "an edge stands still for 20 s", 20*second, "e3"),
		stop("pause-control-6s", "a control node stands still for 6 s", 6*second, "c1"),
		stop("pause-controls-2s", "all control nodes stand still for 2 s", 2*second, controls()...),
		stop("pause-controls-20s", "all control nodes stand still for 20 s", 20*second, controls()...),
	}
	leader := fault{name: "pause-leader-8s", title: "the leader stands still for 8 s, again and again", heal: nothing}
	once := func(ctx context.Context, r *rig) error {
		leader, err := r.leader()
		if err != nil {
			return err
		}
		return in(signalling(syscall.SIGSTOP, leader), waiting(8*second), signalling(syscall.SIGCONT, leader),
			waiting(3*second))(ctx, r)
	}
	leader.begin = in(once, once)
	return append(all, leader)
}

func cuts() []fault {
	often := in(isolating("e3"), waiting(5*second), mending, waiting(2*second))
	return []fault{
		{name: "cut-edge", title: "an edge is cut off for longer than max_disconnected",
			begin: isolating("e1"), hold: long, heal: mending},
		{name: "cut-edge-often", title: "an edge is cut off for 5 s again and again", begin: in(often, often, often),
			heal: nothing},
		{name: "cut-from-edge", title: "nothing that an edge sends to the fleet arrives",
			begin: oneWay("e1", true), hold: long, heal: mending},
		{name: "cut-to-edge", title: "nothing that the fleet sends to an edge arrives",
			begin: oneWay("e1", false), hold: long, heal: mending},
		{name: "cut-from-leader", title: "nothing that the leader sends to the fleet arrives",
			begin: func(ctx context.Context, r *rig) error {
				leader, err := r.leader()
				if err != nil {
					return err
				}
				return oneWay(leader, true)(ctx, r)
			}, hold: long, heal: mending},
		{name: "cut-leader-with-edge", title: "the leader and an edge are on the small side of a cut",
			begin: smallSide, hold: 20 * second, heal: mending},
		{name: "cut-control-from-controls",
			title: "the leader is cut off from the other control nodes, edges reach all",
			begin: leading(func(r *rig, leader string) error {
				return r.cut(true, []string{leader}, controls())
			}), hold: 20 * second, heal: mending},
		{name: "cut-controls-apart", title: "all control nodes are cut off from each other, edges reach all",
			begin: cutting(controls(), controls()), hold: long, heal: mending},
		{name: "cut-start-on-small-side",
			title: "an edge starts on the small side of a cut, with the leader of before",
			begin: in(killing("e1"), smallSide, waiting(3*second), starting("e1")), hold: 18 * second, heal: mending},
		{name: "cut-ring", title: "the links between two control nodes are cut in turn",
			begin: in(cutting([]string{"c1"}, []string{"c2"}), waiting(6*second), mending,
				cutting([]string{"c2"}, []string{"c3"}), waiting(6*second), mending,
				cutting([]string{"c3"}, []string{"c1"}), waiting(6*second)), heal: mending},
		{name: "cut-origin-fails", title: "an edge is cut off from the fleet and from the origin",
			begin: in(isolating("e1"), cutting([]string{"e1"}, []string{hostOrigin})), hold: long, heal: mending},
	}
}
