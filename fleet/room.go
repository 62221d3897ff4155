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

// A purge that is on its way to a full disk may be on that of one control node and not of another,
// and the server ends its log when a write fails. So control nodes keep a floor of free space, and
// refuse what is to be stored before it is reached; what is in the log is still told to edges. If
// something else fills the disk all the same, the server is started again once there is room.

// Room is how much space the disk of a control node has, in bytes.
type Room struct {
	Free  int64
	Floor int64 // kept free: with less, purges are refused
}

// Full reports whether there is less than the floor.
func (r Room) Full() bool { return r.Free < r.Floor }

// What a lease says of the disk of a control node.
const (
	DiskScarce = "scarce" // it has less than twice the floor
	DiskFull   = "full"   // it has less than the floor
)

// State is DiskFull, DiskScarce or "".
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
	// minFloor and maxFloor bound the floor, which is a twentieth of the disk otherwise. A purge of
	// maxPurge is written twice.
	minFloor = 3 * maxPurge
	maxFloor = 512 << 20
	// roomSubject is where control nodes tell each other that their disks are full.
	roomSubject = "kaiku.control.full"
	// roomEvery is how often a control node looks at its disk, and tells others.
	roomEvery = 250 * time.Millisecond
	// roomAge is how old what another control node said may be.
	roomAge = 2 * time.Second
	// fullCode is the number of the error by which a purge is refused; NATS has lower ones.
	fullCode = 19507
)

// ErrFull says that a purge was refused as disks of control nodes are full. It is ErrUnavailable,
// too.
var ErrFull error = fullError{}

type fullError struct{}

// Error implements error.
func (fullError) Error() string {
	return "the control plane stores nothing more: the disks of its nodes are full"
}

// Is makes it an ErrUnavailable.
func (fullError) Is(target error) bool { return target == ErrUnavailable }

// refusal is the error of a purge that was not taken.
func refusal(err error) error {
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == fullCode {
		return fmt.Errorf("%w: %s", ErrFull, api.Description)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Room looks at the disk.
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

// isStored reports whether what is sent to a subject is written to disks.
func isStored(subject string) bool {
	return strings.HasPrefix(subject, purgeSubject+".") ||
		strings.HasPrefix(subject, "$KV.") && !strings.HasPrefix(subject, "$KV."+leaseBucket+".")
}

// rooms is what a control node knows of the disks of all.
type rooms struct {
	mu   sync.Mutex
	full map[string]time.Time // when another control node said so
	own  bool
}

// refuses tells why nothing is to be stored; "" is no reason. A majority that has room goes on.
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
		return fmt.Sprintf("%d of %d control nodes have full disks", full, all)
	}
	return fmt.Sprintf("the disk of control node %s has %d MiB left, and purges are refused below %d MiB",
		c.Node, r.Free>>20, r.Floor>>20)
}

// refused is what a node is answered whose message is not stored, as JetStream would.
func refused(why string) []byte {
	b, _ := json.Marshal(map[string]any{"stream": "", "seq": 0, // of plain values
		"error": map[string]any{"code": 503, "err_code": fullCode, "description": why}})
	return b
}

// watchRoom tells the others of a full disk, and hears of theirs, until ctx ends.
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
		return fmt.Errorf("hear of full disks: %w", err)
	}
	tick := time.NewTicker(roomEvery)
	defer tick.Stop()
	for {
		c.tellRoom(conn)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tellRoom tells the others and the log.
func (c *Control) tellRoom(conn *nats.Conn) {
	r := c.Room()
	c.rooms.mu.Lock()
	changed := r.Full() != c.rooms.own
	c.rooms.own = r.Full()
	c.rooms.mu.Unlock()
	if changed && r.Full() {
		c.Log.Error("control plane: the disk is full: purges are refused unless most control nodes have room",
			"folder", c.Dir, "free_mib", r.Free>>20, "want_mib", r.Floor>>20)
	}
	if changed && !r.Full() {
		c.Log.Info("control plane: the disk has room again", "folder", c.Dir, "free_mib", r.Free>>20)
	}
	if !r.Full() {
		return
	}
	_ = conn.Publish(roomSubject, []byte(c.Node)) // the connection is to this process
	if !changed || c.group == "" {
		return
	}
	for _, stream := range streamNames() { // to one with room, before a write fails
		// refused where this node leads nothing
		_ = conn.Publish(fmt.Sprintf(server.JSApiStreamLeaderStepDownT, stream), nil)
	}
}

// errDisabled ends what runs on a server that has ended its log.
var errDisabled = errors.New("the log of purges could not be written")

// watchLog ends when the server has ended its log, as a write failed.
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

// revive starts the server again, once there is room.
func (c *Control) revive(ctx context.Context) error {
	c.Log.Error("control plane: the log of purges could not be written, and is opened again once there is room: "+
		"is the disk full, or may the folder not be written to?", "folder", c.Dir)
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
