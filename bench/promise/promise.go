//go:build linux

// Package promise checks a fleet against what ARCHITECTURE.md promises about purges, while things
// fail.
//
// Three control nodes, three edges, a name server and an origin each have a machine of their own in
// a bench/world. Readers request objects from all edges all the time. The content of an object
// tells its version. Purgers make a new version at the origin, and then purge the old one: by URL,
// tag, prefix or host, or everything, hard or soft. A checker compares each response with what was
// known when the request was sent. These are the kinds of violation:
//
//   - applied: an edge that was reported to have applied a purge served an older version;
//   - bound: an edge served what a purge had purged that was acknowledged more than
//     max_disconnected ago;
//   - order: an edge served a version from after an acknowledged purge, and later one from before
//     it;
//   - lost: when everything was healed, an acknowledged purge was not in effect on every edge;
//   - torn: a body did not match its version;
//   - recovered: when everything was healed, some edge did not apply purges again.
//
// Each fault has a fleet of its own, which starts empty.
package promise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// Options say what Run does.
type Options struct {
	Kaiku string // path of the program
	Fault string // the only fault to try, or several separated by commas; "" means all
	Runs  int    // how often to try each; 0 means once
	Short bool   // only the faults that tell most
	Keep  string // folder to copy the logs of the last run to; "" means none
	Log   io.Writer
}

// Result is the result of a fault.
type Result struct {
	Fault         string `json:"fault"`
	Title         string `json:"title"`
	Reads         int    `json:"reads"`
	ReadsFailed   int    `json:"reads_failed"`
	Purges        int    `json:"purges"` // number that were acknowledged
	PurgesRefused int    `json:"purges_refused"`
	Applied       int    `json:"applied"` // how often an edge was reported to have applied one
	// Accepted is the time from the end of the fault until a purge was sent and acknowledged; 0 if
	// none was.
	Accepted time.Duration `json:"accepted"`
	// Recovered is the time from the end of the fault until all edges had applied purges, or the
	// limit if they had not.
	Recovered time.Duration  `json:"recovered"`
	Took      time.Duration  `json:"took"`
	Kinds     map[string]int `json:"violations"`
	First     []Violation    `json:"first,omitempty"`
	Refusals  map[string]int `json:"refusals,omitempty"` // why purges were refused
}

// Violations returns the number of violations of all kinds.
func (r Result) Violations() int {
	n := 0
	for _, k := range r.Kinds {
		n += k
	}
	return n
}

// shownViolations is how many violations are printed of a result.
const shownViolations = 5

// String returns one line, and one more for each of the first violations.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s reads %6d (%5d failed)  purges %5d (%4d refused)  applied %5d  ", r.Fault, r.Reads,
		r.ReadsFailed, r.Purges, r.PurgesRefused, r.Applied)
	fmt.Fprintf(&b, "accepted after %4.1fs, whole after %4.1fs  violations %d", r.Accepted.Seconds(),
		r.Recovered.Seconds(), r.Violations())
	for _, k := range slices.Sorted(maps.Keys(r.Kinds)) {
		fmt.Fprintf(&b, " %s:%d", k, r.Kinds[k])
	}
	for _, v := range r.First[:min(len(r.First), shownViolations)] {
		fmt.Fprintf(&b, "\n    %s", v)
	}
	return b.String()
}

// Needed returns the programs that Run needs, and the Debian packages that have them.
func Needed() map[string]string {
	return map[string]string{"ip": "iproute2", "mkfs.ext4": "e2fsprogs", "losetup": "mount"}
}

// Names returns the names of all faults, in order.
func Names() []string {
	var all []string
	for _, f := range allFaults() {
		all = append(all, f.name)
	}
	return all
}

// Has reports whether one of the names, separated by commas, is a fault's.
func Has(names string) bool {
	return slices.ContainsFunc(strings.Split(names, ","), func(n string) bool { return slices.Contains(Names(), n) })
}

// Run tries the faults one after the other, and prints a line for each. With an error, it also
// returns the results until then.
func Run(ctx context.Context, o Options) ([]Result, error) {
	kaiku, err := filepath.Abs(o.Kaiku)
	if err != nil {
		return nil, err
	}
	o.Kaiku = kaiku
	for program, debian := range Needed() {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("no %s here: apt-get install --no-install-recommends %s", program, debian)
		}
	}
	some := slices.DeleteFunc(allFaults(), func(f fault) bool {
		if o.Fault != "" {
			return !slices.Contains(strings.Split(o.Fault, ","), f.name)
		}
		return o.Short && !f.short
	})
	if len(some) == 0 {
		return nil, fmt.Errorf("there is no fault %q: want some of %s", o.Fault, strings.Join(Names(), ", "))
	}
	var all []Result
	for range max(1, o.Runs) {
		for _, f := range some {
			res, bad := try(ctx, o, f)
			if ctx.Err() != nil {
				return all, errors.Join(err, context.Cause(ctx))
			}
			if bad != nil { // go on with the other faults
				err = errors.Join(err, fmt.Errorf("%s: %w", f.name, bad))
				fmt.Fprintf(o.Log, "%s %-28s failed: %v\n", time.Now().Format(time.TimeOnly), f.name, bad)
				continue
			}
			all = append(all, res)
			fmt.Fprintf(o.Log, "%s %s\n", time.Now().Format(time.TimeOnly), res)
		}
	}
	return all, err
}

const (
	startLimit   = 90 * time.Second
	warmTime     = 2 * time.Second
	recoverLimit = 60 * time.Second
	afterTime    = 2 * time.Second
	tryLimit     = 4 * time.Minute
)

// try makes a fleet, makes a fault happen, ends it, and checks whether all is well.
func try(ctx context.Context, o Options, f fault) (res Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tryLimit, fmt.Errorf("it did not end within %v", tryLimit))
	defer cancel()
	began := time.Now()
	r, err := build(ctx, o, f.setup)
	defer func() {
		if r != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err != nil {
		return res, err
	}
	if err := r.makeDisks(); err != nil {
		return res, err
	}
	if err := r.startAll(r.fleet()...); err != nil {
		return res, err
	}
	if err := r.together(ctx, startLimit); err != nil {
		return res, r.withLogs(err)
	}
	end := r.load(ctx)
	defer end()
	steps := []func() error{
		func() error { return world.Pause(ctx, warmTime) },
		func() error { return f.begin(ctx, r) },
		func() error { return world.Pause(ctx, f.hold) },
		func() error { return f.heal(ctx, r) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return res, r.withLogs(err)
		}
	}
	healed := time.Now()
	r.check.heal(healed)
	bad := r.together(ctx, recoverLimit)
	recovered := time.Since(healed)
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	if err := world.Pause(ctx, afterTime); err != nil {
		return res, err
	}
	end()
	if bad == nil {
		bad = r.sweep(ctx)
	} else if err := world.Pause(ctx, r.setup.disconnected); err != nil {
		// After that, everything acknowledged must still hold.
		return res, err
	} else {
		bad = errors.Join(bad, r.sweep(ctx))
	}
	if bad != nil {
		r.check.mu.Lock()
		r.check.add(Violation{Kind: kindRecovered, At: healed, Edge: "-", Object: "-", Why: shorten(bad.Error())})
		r.check.mu.Unlock()
	}
	res = r.check.result()
	res.Fault, res.Title, res.Recovered, res.Took = f.name, f.title, recovered, time.Since(began)
	return res, nil
}

// withLogs adds the last lines of the logs to an error.
func (r *rig) withLogs(err error) error {
	if r.options.Keep != "" {
		return err
	}
	var b strings.Builder
	for _, h := range r.fleet() {
		text, bad := os.ReadFile(r.log(h))
		if bad != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "level=DEBUG") })
		for _, line := range lines[max(0, len(lines)-2):] {
			fmt.Fprintf(&b, "\n  %s: %s", h, line)
		}
	}
	return fmt.Errorf("%w%s", err, b.String())
}
