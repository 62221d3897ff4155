package config

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/kaiku-cdn/kaiku/geodns"
)

const (
	serialTimeout = time.Second     // of one question
	serialsTime   = 3 * time.Second // of all, where there are many zones
)

// liveSerial is what a name server answers.
type liveSerial struct {
	node, server string
	serial       uint32
}

// checkSerials warns of zones whose serial is behind that which the fleet's name servers answer
// (RFC 1982). A server that does not answer says nothing: the fleet may not be there yet.
func (f *Fleet) checkSerials(ctx context.Context, zones []*geodns.Zone) {
	ctx, cancel := context.WithTimeout(ctx, serialsTime)
	defer cancel()
	var mu sync.Mutex // guards live
	live := map[*geodns.Zone]liveSerial{}
	var asking sync.WaitGroup
	for i := range f.Nodes {
		n := &f.Nodes[i]
		server := Reachable(f.DNSListen()[0], n)
		if !n.Has(RoleGeoDNS) || server == "" {
			continue
		}
		asking.Go(func() {
			for _, z := range zones {
				serial, err := oneSerial(ctx, server, z)
				if errors.As(err, new(net.Error)) {
					return // nobody answers there
				}
				mu.Lock()
				if before, ok := live[z]; err == nil && (!ok || int32(serial-before.serial) > 0) {
					live[z] = liveSerial{n.Name, server, serial}
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	a := &zoneAudit{fleet: f}
	for z, is := range live {
		serial, line := z.Serial()
		if int32(serial-is.serial) >= 0 {
			continue
		}
		a.say(true, z, line, "", func(word string) bool { return word == strconv.FormatUint(uint64(serial), 10) },
			"the serial %d is behind %d, which %s (%s) answers, so that whoever compares serials keeps the zone of before: write %d", serial, is.serial, is.node, is.server, is.serial+1)
	}
	a.report()
}

func oneSerial(ctx context.Context, server string, z *geodns.Zone) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, serialTimeout)
	defer cancel()
	return geodns.Serial(ctx, server, z.Name())
}
