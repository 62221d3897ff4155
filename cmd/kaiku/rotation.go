package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kaiku-cdn/kaiku/fleet"
)

// rotation replaces the secret in a file that nodes have too. Each step changes the file, and
// brings it to all nodes. A node that has done a step and one that has not accept what the other
// one uses.
type rotation struct {
	file   string // the operator's
	stages []stage
	again  string // the command that goes on
	once   bool   // one step only
	// deploy brings the file to all nodes. before reports whether nodes have another file, and
	// whether a deploy would do anything.
	deploy func(context.Context) error
	before func(context.Context) (other, anything bool, err error)
	// taken returns once the old secret can be given up for the new one.
	taken func(ctx context.Context, secret string) error
	sure  func() (bool, error) // is asked before the last step; nil is sure
	say   func(format string, a ...any)
}

// stage is what is in the file at a step.
type stage int

const (
	learns  stage = iota // old, new: nodes use the old secret, and accept both
	uses                 // new, old: nodes use the new secret, and accept both
	forgets              // new: nodes refuse the old secret
)

// What a rotation goes through: a secret that nodes show to each other is used after all have
// learned it, before any forgets the old one.
var (
	keyStages   = []stage{learns, uses, forgets}
	tokenStages = []stage{learns, forgets}
)

// run does the steps that are left.
func (r *rotation) run(ctx context.Context) error {
	s, err := readRotated(r.file, len(r.stages))
	if err != nil {
		return err
	}
	other, todo, err := r.before(ctx)
	switch {
	case err != nil:
		return err
	case s.step == 0 && other:
		return r.finish(ctx)
	case s.step == 0:
		todo = true
		if s.new, err = newSecret(); err != nil {
			return err
		}
		if err := r.next(s); err != nil {
			return err
		}
	}
	for ; ; todo = true {
		if todo {
			r.say("step %d of %d: nodes %s secret", s.step, len(r.stages),
				[...]string{"learn the new", "use the new", "forget the old"}[r.stages[s.step-1]])
			if err := errors.Join(r.deploy(ctx), ctx.Err()); err != nil {
				return r.stopped(err)
			}
		}
		left := len(r.stages) - s.step
		if left == 0 {
			r.say("done: %s has the new secret", r.file)
			return nil
		}
		if left == 1 {
			if err := r.taken(ctx, s.new); err != nil {
				return r.stopped(err)
			}
		}
		goOn := !r.once || !todo
		if left == 1 && !r.once && r.sure != nil {
			if goOn, err = r.sure(); err != nil {
				return r.stopped(err)
			}
		}
		if !goOn {
			r.say("step %d of %d is done: run %s again to go on", s.step, len(r.stages), r.again)
			return nil
		}
		if err := r.next(s); err != nil {
			return err
		}
	}
}

// finish ends a rotation whose last step was stopped: the file says nothing of one any more, and
// nodes have another file.
func (r *rotation) finish(ctx context.Context) error {
	r.say("nodes do not all have what is in %s: bringing it to them", r.file)
	if err := r.deploy(ctx); err != nil {
		return r.stopped(err)
	}
	r.say("done: all nodes have the secret that is in %s; to replace it, run %s again", r.file, r.again)
	return nil
}

// next writes the file for the next step.
func (r *rotation) next(s *rotated) error {
	s.step++
	lines := [...][]string{{s.old, s.new}, {s.new, s.old}, {s.new}}[r.stages[s.step-1]]
	lines = append(lines, s.comments...)
	if s.step < len(r.stages) {
		lines = append(lines, fmt.Sprintf("%s%d of %d; to go on, run %s again", rotationMark, s.step, len(r.stages),
			r.again))
	}
	return replaceFile(r.file, []byte(strings.Join(lines, "\n")+"\n"))
}

// stopped says how to go on after an error.
func (r *rotation) stopped(err error) error {
	return fmt.Errorf("%w\nthe rotation is not finished, and all nodes accept each other: run %s again to go on", err,
		r.again)
}

// rotated is what a file of secrets says of a rotation.
type rotated struct {
	step     int // 0 is none
	old, new string
	comments []string // of the operator
}

// rotationMark begins the last line of a file whose rotation is not finished.
const rotationMark = "# kaiku rotate: step "

// readRotated reads a file, of a rotation of so many steps.
func readRotated(file string, steps int) (*rotated, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &rotated{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, rotationMark):
			if _, err := fmt.Sscanf(line, rotationMark+"%d", &s.step); err != nil || s.step < 1 || s.step >= steps {
				return nil, fmt.Errorf("%s: %q is no step of a rotation", file, line)
			}
		case strings.HasPrefix(line, "#"):
			s.comments = append(s.comments, line)
		}
	}
	secrets, err := fleet.SplitSecrets(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	case s.step == 0 && len(secrets) == 1:
		s.old = secrets[0]
	case s.step == 0:
		return nil, fmt.Errorf("%s has %d secrets, which no kaiku rotate wrote: finish by hand what was begun by hand, until one is left; see docs/deploy.md", file, len(secrets))
	case len(secrets) != 2:
		return nil, fmt.Errorf("%s has %d secrets in the middle of a rotation, instead of two: restore the file that kaiku rotate wrote", file, len(secrets))
	case s.step == 1:
		s.old, s.new = secrets[0], secrets[1]
	default:
		s.new, s.old = secrets[0], secrets[1]
	}
	return s, nil
}

// newSecret makes one: 256 random bits.
func newSecret() (string, error) {
	b := make([]byte, 32)
	_, err := rand.Read(b)
	return base64.StdEncoding.EncodeToString(b), err
}

// replaceFile replaces what is in a file, in one step that lasts. It keeps the file's mode and
// owner.
func replaceFile(name string, data []byte) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	before, err := os.Stat(name)
	if err != nil {
		return err
	}
	w, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	err = w.Chmod(before.Mode().Perm())
	if st, ok := before.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		err = errors.Join(err, w.Chown(int(st.Uid), int(st.Gid)))
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Sync(), w.Close()); err == nil {
		err = os.Rename(w.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", name, err), os.Remove(w.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
