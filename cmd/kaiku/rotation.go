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

// rotation replaces a secret in a file that nodes have copies of. Each step rewrites the file and
// deploys it to all nodes. Between two steps, a node with the new file and a node with the old one
// accept each other's secret.
type rotation struct {
	file   string // the operator's copy
	stages []stage
	again  string // the command that continues the rotation
	once   bool   // stop after one step
	// deploy copies the file to all nodes. before reports whether nodes have another version of the
	// file (other), and whether a deploy would change anything at all (anything).
	deploy func(context.Context) error
	before func(context.Context) (other, anything bool, err error)
	// taken returns nil once all nodes are ready to give up the old secret for the new one.
	taken func(ctx context.Context, secret string) error
	sure  func() (bool, error) // asks the operator before the last step; nil means yes
	say   func(format string, a ...any)
}

// stage is the content of the file during a step.
type stage int

const (
	learns  stage = iota // old, new: nodes use the old secret and accept both
	uses                 // new, old: nodes use the new secret and accept both
	forgets              // new: nodes refuse the old secret
)

// The stages of a rotation. Nodes show the fleet key to each other, so none uses the new key before
// all have learned it, and none forgets the old key before all use the new one.
var (
	keyStages   = []stage{learns, uses, forgets}
	tokenStages = []stage{learns, forgets}
)

// run does the steps that are left, or one of them if once is set.
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
			r.say("step %d of %d: nodes will %s", s.step, len(r.stages),
				[...]string{"accept the new secret too", "use the new secret",
					"refuse the old secret"}[r.stages[s.step-1]])
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
			r.say("step %d of %d is done: to continue, run %s", s.step, len(r.stages), r.again)
			return nil
		}
		if err := r.next(s); err != nil {
			return err
		}
	}
}

// finish completes a rotation that was interrupted in its last step: the file no longer mentions a
// rotation, but some nodes still have the previous file.
func (r *rotation) finish(ctx context.Context) error {
	r.say("some nodes have an older version of %s: deploying it", r.file)
	if err := r.deploy(ctx); err != nil {
		return r.stopped(err)
	}
	r.say("done: all nodes have the secret in %s; to replace it, run %s", r.file, r.again)
	return nil
}

// next rewrites the file for the next step.
func (r *rotation) next(s *rotated) error {
	s.step++
	lines := [...][]string{{s.old, s.new}, {s.new, s.old}, {s.new}}[r.stages[s.step-1]]
	lines = append(lines, s.comments...)
	if s.step < len(r.stages) {
		lines = append(lines, fmt.Sprintf("%s%d of %d; to continue, run %s", rotationMark, s.step, len(r.stages),
			r.again))
	}
	return replaceFile(r.file, []byte(strings.Join(lines, "\n")+"\n"))
}

// stopped adds to an error how to continue the rotation.
func (r *rotation) stopped(err error) error {
	return fmt.Errorf("%w\nthe rotation is not finished, but all nodes still accept each other: to continue, run %s",
		err,
		r.again)
}

// rotated is the state of a rotation, as the file of secrets records it.
type rotated struct {
	step     int // from 1; 0 means that no rotation is under way
	old, new string
	comments []string // written by the operator
}

// rotationMark begins the last line of a file whose rotation is not finished.
const rotationMark = "# kaiku rotate: step "

// readRotated reads the file of a rotation that has the given number of steps.
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
		return nil, fmt.Errorf("%s has %d secrets, but not from kaiku rotate: first complete your own rotation, until one secret is left; see docs/deploy.md", file, len(secrets))
	case len(secrets) != 2:
		return nil, fmt.Errorf("%s has %d secrets in the middle of a rotation, instead of two: restore the file that kaiku rotate wrote", file, len(secrets))
	case s.step == 1:
		s.old, s.new = secrets[0], secrets[1]
	default:
		s.new, s.old = secrets[0], secrets[1]
	}
	return s, nil
}

// newSecret returns 256 random bits in base64.
func newSecret() (string, error) {
	b := make([]byte, 32)
	_, err := rand.Read(b)
	return base64.StdEncoding.EncodeToString(b), err
}

// replaceFile replaces a file's content atomically and durably. It keeps the file's mode and owner.
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
