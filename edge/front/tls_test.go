package front

import (
	"context"
	"crypto/tls"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTicketKeys(t *testing.T) {
	one, same, other := &Server{Secrets: [][32]byte{{1}}}, &Server{Secrets: [][32]byte{{1}}},
		&Server{Secrets: [][32]byte{{2}}}
	now := time.Now().Truncate(ticketTime).Add(time.Hour)
	for after, good := range map[time.Duration]bool{0: true, ticketTime: true, 2 * ticketTime: false,
		-ticketTime: true} {
		made, taken := one.ticketKeys(now)[0], same.ticketKeys(now.Add(after))
		if slices.Contains(taken, made) != good {
			t.Errorf("a ticket is taken %v later: %v", after, !good)
		}
		if slices.Contains(other.ticketKeys(now.Add(after)), made) {
			t.Error("a ticket is taken by another fleet")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			one.rotateTickets(ctx, &tls.Config{})
			close(ended)
		}()
		time.Sleep(3 * ticketTime)
		cancel()
		<-ended
	})
}
