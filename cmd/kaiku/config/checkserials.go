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
	serialTimeout = time.Second     // limits one query
	serialsTime   = 3 * time.Second // limits all queries, for fleets with many zones
)

// liveSerial is a name server's current serial of a zone.
type liveSerial struct {
	node, server string
	serial       uint32
}

// checkSerials warns about zones whose serial is lower than the one that a name server of the fleet
// has now (RFC 1982). Name servers that don't answer are ignored: the fleet may not exist yet.
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
					return // the name server does not answer
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
