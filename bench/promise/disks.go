//go:build linux

package promise

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaiku-cdn/kaiku/bench/world"
)

// ownDisk is the size of a file system that can lose power or fill up. Its file is sparse. The log
// of purges wants 4 GiB of free space.
const ownDisk = 8 << 30

// mount returns the shell command that mounts a host's file system on its folder, or "".
func (r *rig) mount(host string) string {
	if !slices.Contains(r.setup.ownDisk, host) {
		return ""
	}
	return fmt.Sprintf("mount -o loop,noatime %s %s", r.image(host), r.folder(host))
}

func (r *rig) image(host string) string { return filepath.Join(r.dir, host+".ext4") }

// makeDisks makes the file systems of hosts that have one of their own.
func (r *rig) makeDisks() error {
	for _, h := range r.setup.ownDisk {
		if err := os.WriteFile(r.image(h), nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(r.image(h), ownDisk); err != nil {
			return err
		}
		if out, err := exec.Command("mkfs.ext4", "-q", r.image(h)).CombinedOutput(); err != nil {
			return fmt.Errorf("make a file system: %w: %s", err, shorten(string(out)))
		}
	}
	return nil
}

// inside returns the folder of a host as its process sees it.
func (r *rig) inside(host string) string {
	return fmt.Sprintf("/proc/%d/root%s", r.process(host).Pid(), r.folder(host))
}

// shutdown is the ioctl(2) that makes ext4 and XFS drop everything that is not on disk yet, as in a
// power loss (EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)).
const (
	shutdown          = 0x8004587d
	shutdownNoFlush   = 2
	limitOfUnmounting = 10 * time.Second
)

// powerLoss cuts the power of hosts: their processes and everything not synced are gone.
func (r *rig) powerLoss(ctx context.Context, hosts ...string) error {
	for _, h := range hosts {
		dir, err := os.Open(r.inside(h))
		if err != nil {
			return err
		}
		err = unix.IoctlSetPointerInt(int(dir.Fd()), shutdown, shutdownNoFlush)
		if bad := dir.Close(); err == nil {
			err = bad
		}
		if err != nil {
			return fmt.Errorf("shut the file system of %s down: %w", h, err)
		}
	}
	r.kill(hosts...)
	for end := time.Now().Add(limitOfUnmounting); ; { // the mounts end with the last process in them
		out, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE").Output()
		if err != nil {
			return fmt.Errorf("list loop devices: %w", err)
		}
		if !slices.ContainsFunc(hosts, func(h string) bool { return strings.Contains(string(out), r.image(h)) }) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the file systems of %s are still there", hosts)
		}
		if err := world.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// fill leaves no space on the disk of a host. The file that fills it is sparse on this machine.
func (r *rig) fill(host string) error {
	f, err := os.Create(filepath.Join(r.inside(host), "fill"))
	if err != nil {
		return err
	}
	defer f.Close()
	at := int64(0)
	for size := int64(1 << 30); size >= 4<<10; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); err != nil {
			size /= 2
			continue
		}
		at += size
	}
	if at == 0 {
		return fmt.Errorf("nothing could be taken of the disk of %s", host)
	}
	return nil
}

// unfill frees the space again.
func (r *rig) unfill(host string) error { return os.Remove(filepath.Join(r.inside(host), "fill")) }

// copyFolder copies a folder with its contents, like a backup.
func copyFolder(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, shorten(string(out)))
	}
	return nil
}
