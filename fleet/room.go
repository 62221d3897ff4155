package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// When a disk is nearly full, a purge may be written by one control node and not by another, and
// NATS disables a log after a failed write. So control nodes keep a floor of free space, and refuse
// writes before it is reached. They still deliver what is in the log. If something else fills the
// disk, the server is started again once there is room.

// Room is the free space on the disk of a control node, in bytes.
type Room struct {
	Free  int64
	Floor int64 // purges are refused below this
}

// Full reports whether less than the floor is free.
func (r Room) Full() bool { return r.Free < r.Floor }

// States of a control node's disk in its lease.
const (
	DiskScarce = "scarce" // less than twice the floor is free
	DiskFull   = "full"   // less than the floor is free
)

// State returns DiskFull, DiskScarce or "".
func (r Room) State() string {
	switch {
	case r.Full():
		return DiskFull
	case r.Free < 2*r.Floor:
		return DiskScarce
	}
	return ""
}

const (
	// minFloor and maxFloor bound the floor, which is a twentieth of the disk. A purge of maxPurge
	// is written twice.
	minFloor = 3 * maxPurge
	maxFloor = 512 << 20
	// roomSubject is the subject on which control nodes report full disks to each other.
	roomSubject = "kaiku.control.full"
	// roomEvery is how often a control node checks its disk, and reports it if it is full.
	roomEvery = 250 * time.Millisecond
	// roomAge is how long a report of another control node counts.
	roomAge = 2 * time.Second
	// fullCode is the number of the error that refuses a purge. NATS's numbers are lower.
	fullCode = 19507
)

// ErrFull means that a purge was refused because disks of control nodes are full. errors.Is also
// matches it with ErrUnavailable.
var ErrFull error = fullError{}

type fullError struct{}

// Error implements error.
func (fullError) Error() string {
	return "the control plane can't store anything, because the disks of its nodes are full"
}

// Is makes errors.Is match it with ErrUnavailable.
func (fullError) Is(target error) bool { return target == ErrUnavailable }

// refusal returns the error of a purge that was not taken.
func refusal(err error) error {
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == fullCode {
		return fmt.Errorf("%w: %s", ErrFull, api.Description)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Room returns the free space on the node's disk.
func (c *Control) Room() Room {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(c.Dir, &fs); err != nil {
		return Room{}
	}
	size, free := int64(fs.Blocks)*int64(fs.Bsize), int64(fs.Bavail)*int64(fs.Bsize)
	floor := c.floor.Load()
	if floor == 0 {
		floor = min(max(size/20, minFloor), maxFloor)
	}
	return Room{free, floor}
}

// isStored reports whether a message to a subject is written to disks.
func isStored(subject string) bool {
	return strings.HasPrefix(subject, purgeSubject+".") ||
		strings.HasPrefix(subject, "$KV.") && !strings.HasPrefix(subject, "$KV."+leaseBucket+".")
}

// rooms is what a control node knows of all control nodes' disks.
type rooms struct {
	mu   sync.Mutex
	full map[string]time.Time // time of the last report, by control node
	own  bool
}

// refuses returns why nothing may be stored, or "". A majority with room is enough to go on.
func (c *Control) refuses() string {
	r := c.Room()
	full := 0
	if r.Full() {
		full = 1
	}
	c.rooms.mu.Lock()
	for _, at := range c.rooms.full {
		if time.Since(at) < roomAge {
			full++
		}
	}
	c.rooms.mu.Unlock()
	all := 1
	if c.group != "" {
		all += len(c.Peers)
	}
	if all-full >= all/2+1 {
		return ""
	}
	if !r.Full() {
		return fmt.Sprintf("the disks of %d of %d control nodes are full", full, all)
	}
	return fmt.Sprintf("the disk of control node %s has %d MiB free; purges are refused below %d MiB",
		c.Node, r.Free>>20, r.Floor>>20)
}

// refused returns the answer to a message that is not stored, in JetStream's form.
func refused(why string) []byte {
	b, _ := json.Marshal(map[string]any{"stream": "", "seq": 0, // plain values can't fail
		"error": map[string]any{"code": 503, "err_code": fullCode, "description": why}})
	return b
}

// watchRoom reports a full disk to the other control nodes, and takes their reports, until ctx
// ends.
func (c *Control) watchRoom(ctx context.Context) error {
	conn, _, err := inside(c.nats(), userFleet, c.secret)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Subscribe(roomSubject, func(m *nats.Msg) {
		c.rooms.mu.Lock()
		defer c.rooms.mu.Unlock()
		if name := string(m.Data); name != c.Node && len(c.rooms.full) < maxGateConns {
			if c.rooms.full == nil {
				c.rooms.full = map[string]time.Time{}
			}
			c.rooms.full[name] = time.Now()
		}
	}); err != nil {
		return fmt.Errorf("subscribe to reports of full disks: %w", err)
	}
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		c.reportRoom(conn)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reportRoom reports a full disk to the other control nodes, and logs changes.
func (c *Control) reportRoom(conn *nats.Conn) {
	r := c.Room()
	c.rooms.mu.Lock()
	changed := r.Full() != c.rooms.own
	c.rooms.own = r.Full()
	c.rooms.mu.Unlock()
	if changed && r.Full() {
		c.Log.Error("control plane: the disk is full: free some space; if the disks of most control nodes are full, purges are refused",
			"folder", c.Dir, "free_mib", r.Free>>20, "want_mib", r.Floor>>20)
	}
	if changed && !r.Full() {
		c.Log.Info("control plane: the disk has free space again", "folder", c.Dir, "free_mib", r.Free>>20)
	}
	if !r.Full() {
		return
	}
	_ = conn.Publish(roomSubject, []byte(c.Node)) // can't fail: the connection is to this process
	if !changed || c.group == "" {
		return
	}
	for _, stream := range streamNames() { // hand leadership to a node with room before a write fails
		// The server refuses this for streams that this node doesn't lead.
		_ = conn.Publish(fmt.Sprintf(server.JSApiStreamLeaderStepDownT, stream), nil)
	}
}

// errDisabled ends everything on a server whose log is disabled.
var errDisabled = errors.New("the log of purges could not be written")

// watchLog calls ended when the server has disabled its log after a failed write.
func (c *Control) watchLog(ctx context.Context, ended func(error)) {
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !c.nats().JetStreamEnabled() || c.failed.Load().Load() {
				ended(errDisabled)
				return
			}
		}
	}
}

// revive starts the server again once there is room.
func (c *Control) revive(ctx context.Context) error {
	c.Log.Error("control plane: could not write the log of purges; it is opened again once the disk has free space: "+
		"is the disk full, or the folder not writable?", "folder", c.Dir)
	c.halt()
	pause := roomEvery
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if c.Room().Full() {
			continue
		}
		err := c.start()
		if err == nil {
			return nil
		}
		c.Log.Warn("control plane: open the log of purges again", "error", err)
		pause = min(2*pause, 5*time.Second)
	}
}
