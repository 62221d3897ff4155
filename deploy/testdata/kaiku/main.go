// Command kaiku stands for the real one in tests of deploys: its process, its listener, and that it may be sick.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" {
		return
	}
	fmt.Fprintln(os.Stderr, serve(os.Getenv("KAIKU_ROOT")))
	os.Exit(1)
}

// serve answers each connection with "ok", or "sick" if the binary's end or the fleet file has that word, and notes its address as that it is ready.
func serve(root string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	conf, err := os.ReadFile(filepath.Join(root, "etc/kaiku/fleet.yaml"))
	if err != nil {
		return err
	}
	if bytes.Contains(conf, []byte("broken")) {
		return fmt.Errorf("fleet.yaml is broken")
	}
	answer := "ok"
	if bytes.HasSuffix(self, []byte("sick")) || bytes.Contains(conf, []byte("sick")) {
		answer = "sick"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready := filepath.Join(root, "run/ready")
	if err := os.WriteFile(ready+".new", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(ready+".new", ready); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		fmt.Fprintln(os.Stderr, "the old one ends")
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, answer)
		c.Close()
	}
}
