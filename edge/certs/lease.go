package certs

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"time"
)

const (
	leaseRenew = 4 * time.Second  // the holder renews the lease this often
	leaseLost  = 10 * time.Second // the holder gives up a lease that it can't renew for this long
	leaseStale = 15 * time.Second // others take a lease that was not renewed for this long
	leaseLook  = time.Second      // others look at the lease this often
)

// hold calls f whenever this process gets a lease, until ctx ends. It ends f's context when the
// lease is lost. It never compares the clocks of two machines: a lease is stale once its revision
// has not changed for leaseStale by the clock of the process that waits.
func hold(ctx context.Context, v Vault, key string, log *slog.Logger, f func(context.Context)) {
	owner := []byte(rand.Text())
	var seen uint64
	var since time.Time
	var failing time.Time // since when the vault can't be reached; zero if it can
	told := false
	for ctx.Err() == nil {
		_, revision, _, err := v.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			revision, err = 0, nil
		}
		if err == nil || revision != 0 {
			told, failing = false, time.Time{}
		}
		switch {
		// An error with a revision means that the holder has another fleet key.
		case err != nil && revision == 0:
			if failing.IsZero() {
				failing = time.Now()
			}
			if !told && time.Since(failing) > startTime {
				log.Warn("certificates: the control plane can't be reached, so it is unknown which edge orders certificates; present certificates stay in use", "error",
					err)
				told = true
			}
			since = time.Time{}
		case revision != 0 && (revision != seen || since.IsZero()):
			seen, since = revision, time.Now()
		case revision == 0 || time.Since(since) > leaseStale:
			mine, err := v.Save(ctx, key, owner, revision)
			if err != nil {
				break // another was faster
			}
			log.Info("certificates: this edge orders and renews for the fleet")
			keep(ctx, v, key, owner, mine, f)
			since = time.Time{}
			continue
		}
		select {
		case <-time.After(leaseLook):
		case <-ctx.Done():
		}
	}
}

// keep renews a lease while f runs, and ends f's context when the lease is lost.
func keep(ctx context.Context, v Vault, key string, owner []byte, revision uint64, f func(context.Context)) {
	held, lose := context.WithCancel(ctx)
	defer lose()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(held)
	}()
	lost := time.AfterFunc(leaseLost, lose)
	defer lost.Stop()
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-done:
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			// Others need not wait for leaseStale then. The save fails if another has the lease.
			_, _ = v.Save(end, key, nil, revision)
			return
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(held, leaseRenew)
		now, err := v.Save(call, key, owner, revision)
		if err != nil { // the save may have worked all the same
			value, at, _, e := v.Load(call, key)
			switch {
			case e == nil && string(value) == string(owner):
				now, err = at, nil
			case e == nil || errors.Is(e, fs.ErrNotExist):
				lose() // another edge has the lease, or the vault was replaced
			}
		}
		cancel()
		if err == nil {
			revision = now
			lost.Reset(leaseLost)
		}
	}
}
