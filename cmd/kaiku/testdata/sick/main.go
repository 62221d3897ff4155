// Command sick is a version of Kaiku that a deploy must not leave on a node: it either ends at
// once, or says that it is ready and answers every request with 503.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

var how string // "ends" or "ready", by the linker

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" { // so that it is not refused earlier
		fmt.Println("kaiku sick")
		return
	}
	if how == "ends" {
		fmt.Fprintln(os.Stderr, "kaiku: this version ends at once")
		os.Exit(1)
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "kaiku:", err)
		os.Exit(1)
	}
}

// serve answers on all listeners that systemd passes.
func serve() error {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return err
	}
	for fd := 3; fd < 3+n; fd++ {
		l, err := net.FileListener(os.NewFile(uintptr(fd), "systemd"))
		if err != nil {
			return err
		}
		go func() {
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "this version is sick", http.StatusServiceUnavailable)
			}))
		}()
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("READY=1")); err != nil {
		return err
	}
	<-ended
	return nil
}
