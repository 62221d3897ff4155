//go:build linux

// Command lab measures what Kaiku is for: a user in Finland, an origin in the US. It builds a small
// internet on this machine (see bench/world), with a fleet of real kaiku processes, nginx as the
// origin, and a caching resolver from PowerDNS beside each client. It measures what users notice in
// normal use, of failing parts, and of a rolling deploy, how long a purge takes until it holds
// everywhere, and whether the promise of purges holds (see bench/promise).
//
// It needs root. Everything runs in namespaces, and in a directory that it makes and removes. The
// clients, and process 1 of each machine that gets deploys, are this program, too, run inside the
// namespaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/promise"
	"github.com/kaiku-cdn/kaiku/bench/world/machine"
)

func main() {
	machine.Run()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench/lab:", err)
		os.Exit(1)
	}
}

// options says what to measure.
type options struct {
	kaiku string
	parts []string // of allParts
	short bool     // the short version, in three minutes
	keep  string   // folder to copy logs to; "" means none
	only  string   // the only fault to try; "" means all
	runs  int      // how often to try each fault of the promise
	near  bool     // put all machines into one city
	self  string   // path of this program
	// client is the command line of a client.
	client []string
	log    io.Writer
}

const (
	partFeel   = "feel"
	partFaults = "faults"
	partPurge  = "purge"
	partDeploy = "deploy"
	// partPromise builds worlds of its own.
	partPromise = "promise"
)

func allParts() []string {
	return []string{partFeel, partFaults, partPurge, partDeploy, partPromise}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "client" {
		return runClient(ctx, args[1:], stdin, stdout)
	}
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	o := options{log: stderr}
	flags.StringVar(&o.kaiku, "kaiku", "bin/kaiku", "the program to measure")
	parts := flags.String("parts", strings.Join(allParts(), ","), "which parts, separated by commas")
	flags.BoolVar(&o.short, "short", false, "fewer and shorter measurements, in three minutes")
	flags.StringVar(&o.only, "fault", "",
		"the only fault to try, of the parts faults and promise; of the latter, several with commas between them")
	flags.IntVar(&o.runs, "runs", 1, "how often each fault of the part promise is tried")
	flags.BoolVar(&o.near, "near", false, "have all machines in one city, to tell what is of the ocean")
	flags.StringVar(&o.keep, "keep", "", "copy the logs of all processes to this directory")
	var out outputs
	flags.StringVar(&out.text, "out", "", "write the text to this file too")
	flags.StringVar(&out.json, "json", "", "write everything measured to this file")
	flags.StringVar(&out.svg, "svg", "", "write the chart to this file")
	flags.StringVar(&out.doc, "doc", "", "write the page for readers to this file")
	again := flags.String("from", "", "measure nothing: write what this file of -json has in the other forms")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *again != "" {
		r, err := readReport(*again)
		if err != nil {
			return err
		}
		r.judgeAll()
		return out.write(r, stdout)
	}
	o.parts = strings.Split(*parts, ",")
	for _, p := range o.parts {
		if !slices.Contains(allParts(), p) {
			return fmt.Errorf("there is no part %q: want some of %s", p, strings.Join(allParts(), ", "))
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.self, o.client = self, []string{self, "client"}
	r, err := measure(ctx, o)
	if err != nil {
		if r != nil { // write what was measured; files of other parts stay
			err = errors.Join(err, r.print(stdout))
		}
		return err
	}
	return out.write(r, stdout)
}

// measure runs the parts. After an error, it also returns what was measured before.
func measure(ctx context.Context, o options) (*report, error) {
	promised := slices.Contains(o.parts, partPromise)
	o.parts = slices.DeleteFunc(slices.Clone(o.parts), func(p string) bool { return p == partPromise })
	r := &report{Time: time.Now().UTC().Format(time.RFC3339), Short: o.short}
	if len(o.parts) > 0 {
		var err error
		if r, err = measureFleet(ctx, o); err != nil {
			return r, err
		}
	}
	// otherwise the fault is of another part
	if !promised || len(o.parts) > 0 && o.only != "" && !promise.Has(o.only) {
		return r, nil
	}
	defer r.judgeAll()
	var err error
	if r.Promise, err = promise.Run(ctx, promise.Options{Kaiku: o.kaiku, Fault: o.only, Runs: o.runs, Short: o.short,
		Keep: o.keep, Log: o.log}); err != nil {
		return r, fmt.Errorf("part %s: %w", partPromise, err)
	}
	return r, nil
}

// measureFleet builds a world, runs the parts that share it, and removes the world.
func measureFleet(ctx context.Context, o options) (_ *report, err error) {
	kaiku, err := filepath.Abs(o.kaiku)
	if err != nil {
		return nil, err
	}
	o.kaiku = kaiku
	programs := map[string]string{"ip": "iproute2", "nginx": "nginx-light", "pdns_recursor": "pdns-recursor"}
	if slices.Contains(o.parts, partDeploy) {
		maps.Copy(programs, map[string]string{"sshd": "openssh-server", "ssh-keygen": "openssh-client",
			"unshare": "util-linux", "setpriv": "util-linux", "useradd": "passwd"})
	}
	for program, debian := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("no %s here: apt-get install --no-install-recommends %s", program, debian)
		}
	}
	l, err := build(ctx, o)
	defer func() {
		if l != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err != nil {
		return nil, err
	}
	if o.short || !slices.Equal(o.parts, []string{partDeploy}) { // the deploy starts the fleet itself
		if err := l.serve(ctx); err != nil {
			return nil, err
		}
	}
	r := &report{Time: time.Now().UTC().Format(time.RFC3339), Short: o.short, TTL: l.ttl,
		Disconnected: l.maxDisconnected, Together: l.together, TCP: l.world.Congestion}
	defer r.judgeAll()
	for _, part := range []struct {
		name string
		run  func(context.Context, *report) error
	}{{partFeel, l.feel}, {partPurge, l.purges}, {partFaults, l.faults}, {partDeploy, l.deploys}} {
		// the last part, deploy, changes the fleet for good
		if slices.Contains(o.parts, part.name) {
			began := time.Now()
			if err := part.run(ctx, r); err != nil {
				return r, fmt.Errorf("part %s: %w", part.name, err)
			}
			l.say("part %s took %v", part.name, time.Since(began).Round(time.Second))
		}
	}
	r.Counts = l.world.Counts()
	return r, nil
}
