package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

const (
	// keyWait is how long caches may keep the previous DNSKEY records after a change: their TTL.
	keyWait = time.Hour
	// parentWait is how long caches may keep the previous DS records after a change. The parent
	// sets their TTL, which is a day at most at the large registries. The full TTL is unknown,
	// because a resolver returns only the time that is left.
	parentWait = 48 * time.Hour
)

// keyStep is the state of a zone's keys before a step of `dnssec rollover` or `dnssec leave`.
type keyStep struct {
	view *keyView
	now  time.Time
	say  func(format string, a ...any)
}

// dnssecStep returns a command that does one step. The step itself makes sure that the previous
// ones are seen everywhere.
func dnssecStep(use, short, long string, step func(*keyStep) error) *cobra.Command {
	var o dnssecOptions
	cmd := &cobra.Command{
		Use: use + " ZONE", Short: short, Long: long, Args: usage(wants("ZONE")),
		RunE: func(cmd *cobra.Command, args []string) error {
			zones, err := signedZones(o.fleetFile, args[0])
			if err != nil {
				return err
			}
			k := &keyStep{view: o.view(cmd.Context(), zones[0]), now: time.Now(), say: func(format string, a ...any) {
				fmt.Fprintf(cmd.OutOrStdout(), format+"\n", a...)
			}}
			return step(k)
		},
	}
	o.flags(cmd)
	return cmd
}

func dnssecRollover() *cobra.Command {
	return dnssecStep("rollover", "Replace the key of a zone, one step at a time",
		`Replace the key of a zone. Each call does the next step, once the previous step is visible at all
name servers and, where it matters, at the parent zone. Otherwise it prints what to wait for. Deploy
after each step that changes the key file. The steps:

  1. the name servers publish a new key beside the old one; wait an hour
  2. at the registrar, you replace the DS record by that of the new key; wait two days
  3. the new key signs; wait until no cache has a signature of the old key
  4. the old key is removed`, (*keyStep).rollover)
}

// key returns the key in a state, or nil.
func (k *keyStep) key(state dnssec.State) *dnssec.Key {
	keys := k.view.zone.keys
	if at := slices.IndexFunc(keys, func(key *dnssec.Key) bool { return key.State == state }); at >= 0 {
		return keys[at]
	}
	return nil
}

// rollover does the next step of a key rollover.
func (k *keyStep) rollover() error {
	z := k.view.zone
	if k.key(dnssec.Leaving) != nil {
		return fmt.Errorf("%s is leaving DNSSEC, so its key can't be replaced", z.name())
	}
	if why := k.view.atServers(); why != "" {
		return fmt.Errorf("the step before isn't done at all name servers: %s", why)
	}
	next, retired := k.key(dnssec.Next), k.key(dnssec.Retired)
	switch {
	case next != nil:
		return k.promote(next)
	case retired != nil:
		return k.forget(retired)
	}
	if k.view.parentErr != nil {
		return k.view.parentErr
	}
	if active := k.key(dnssec.Active); len(k.view.parent) > 0 && !k.view.parentHas(active) {
		return fmt.Errorf("the parent's DS record belongs to another key than %d: see kaiku dnssec status", active.Tag())
	}
	made, err := dnssec.Generate()
	if err != nil {
		return err
	}
	made.State = dnssec.Next
	z.keys = append(z.keys, made)
	if err := z.save(); err != nil {
		return err
	}
	k.say("step 1 of 4: the new key %d is in %s. Deploy, then run this command again.", made.Tag(), z.file)
	return nil
}

// promote makes the next key the active one, once the parent has its DS record and no cache has the
// previous DS record any more.
func (k *keyStep) promote(next *dnssec.Key) error {
	z := k.view.zone
	active := k.key(dnssec.Active)
	if k.view.parentErr != nil {
		return k.view.parentErr
	}
	if !k.view.parentHas(next) {
		if waits, err := k.wait(next, keyWait, "caches may still have the old set of keys"); waits || err != nil {
			return err
		}
		k.say("step 2 of 4: at the registrar, replace the DS record by this one, then run this command again:")
		return z.printDS(sayer{k})
	}
	// While the active key is replaced, its Seen is when the parent was first seen to have the DS
	// record of the next key.
	if active.Seen.IsZero() {
		active.Seen = k.now
		if err := z.save(); err != nil {
			return err
		}
	}
	if left := active.Seen.Add(parentWait).Sub(k.now); left > 0 {
		k.say("the parent has the DS record of key %d. Caches may still have the previous one until %s: run this command again after that.", next.Tag(), when(active.Seen.Add(parentWait)))
		return nil
	}
	active.State, active.Seen = dnssec.Retired, time.Time{}
	next.State, next.Seen = dnssec.Active, time.Time{}
	if err := z.save(); err != nil {
		return err
	}
	k.say("step 3 of 4: key %d signs, and key %d is still published. Deploy, then run this command again.", next.Tag(),
		active.Tag())
	return nil
}

// forget removes the retired key, once no cache has a signature made with it.
func (k *keyStep) forget(retired *dnssec.Key) error {
	z := k.view.zone
	if k.view.parentErr != nil {
		return k.view.parentErr
	}
	if k.view.parentHas(retired) {
		return fmt.Errorf("the parent still has the DS record of key %d: have the registrar remove it first",
			retired.Tag())
	}
	if waits, err := k.wait(retired, z.longestTTL(), "caches may still have its signatures"); waits || err != nil {
		return err
	}
	z.keys = slices.DeleteFunc(z.keys, func(key *dnssec.Key) bool { return key == retired })
	if err := z.save(); err != nil {
		return err
	}
	k.say("step 4 of 4: key %d is removed from %s. Deploy, and the rollover is complete.", retired.Tag(), z.file)
	return nil
}

// wait records when a key was first seen at all name servers. If less than long has passed since
// then, it prints until when to wait, and why, and returns true.
func (k *keyStep) wait(key *dnssec.Key, long time.Duration, why string) (bool, error) {
	if key.Seen.IsZero() {
		key.Seen = k.now
		if err := k.view.zone.save(); err != nil {
			return true, err
		}
	}
	until := key.Seen.Add(long)
	if k.now.Before(until) {
		k.say("all name servers publish key %d, which is %s. Until %s, %s: run this command again after that.", key.Tag(),
			key.State, when(until), why)
		return true, nil
	}
	return false, nil
}

// longestTTL returns how long caches may keep signatures of a key that no longer signs.
func (z *signedZone) longestTTL() time.Duration {
	longest := keyWait
	if z.read != nil {
		longest = max(longest, z.read.MaxTTL())
	}
	for _, e := range z.zone.Edges {
		longest = max(longest, time.Duration(e.TTL))
	}
	return min(longest, dnssec.MaxTTL) // signatures have expired by then
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// sayer is an io.Writer that prints through a step's say.
type sayer struct{ k *keyStep }

func (s sayer) Write(b []byte) (int, error) {
	s.k.say("%s", strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func dnssecLeave() *cobra.Command {
	return dnssecStep("leave", "Take a zone out of DNSSEC, one step at a time",
		`Take a zone out of DNSSEC, so that at no time a validating resolver refuses it. Each call does the
next step, once the previous step is visible everywhere. Otherwise it prints what to wait for. The
steps:

  1. the zone asks its parent to remove the DS record (RFC 8078), and stays signed; deploy
  2. at the registrar, you remove the DS record; wait two days
  3. you remove dnssec from the fleet file, and deploy`, (*keyStep).leave)
}

// leave does the next step of taking a zone out of DNSSEC.
func (k *keyStep) leave() error {
	z := k.view.zone
	leaving := k.key(dnssec.Leaving)
	if leaving == nil {
		if len(z.keys) > 1 {
			return fmt.Errorf("the key of %s is being replaced: first complete that with kaiku dnssec rollover",
				z.name())
		}
		key := z.keys.Signer()
		key.State, key.Seen = dnssec.Leaving, time.Time{}
		if err := z.save(); err != nil {
			return err
		}
		k.say("step 1 of 3: %s will ask its parent to remove the DS record. Deploy, then run this command again.", z.name())
		return nil
	}
	if why := k.view.atServers(); why != "" {
		return fmt.Errorf("the step before isn't done at all name servers: %s", why)
	}
	if k.view.parentErr != nil {
		return k.view.parentErr
	}
	if len(k.view.parent) > 0 {
		leaving.Seen = time.Time{}
		if err := z.save(); err != nil {
			return err
		}
		k.say("step 2 of 3: at the registrar, remove all DS records of %s, then run this command again. Keep the zone signed until then.", z.name())
		return nil
	}
	if leaving.Seen.IsZero() {
		leaving.Seen = k.now
		if err := z.save(); err != nil {
			return err
		}
	}
	if until := leaving.Seen.Add(parentWait); k.now.Before(until) {
		k.say("the parent has no DS record. Caches may still have the previous one until %s: run this command again after that.",
			when(until))
		return nil
	}
	k.say("step 3 of 3: remove dnssec of %s from the fleet file, and deploy. Then the zone is out of DNSSEC.",
		z.name())
	return nil
}
