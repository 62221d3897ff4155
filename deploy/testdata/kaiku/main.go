// Command kaiku stands in for the real kaiku in tests of deploys. It listens, reads a fleet file,
// and can be made unhealthy.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kaiku-cdn/kaiku/deploy"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" {
		return
	}
	fmt.Fprintln(os.Stderr, serve(os.Getenv("KAIKU_ROOT")))
	os.Exit(1)
}

// process answers each connection with its state.
type process struct {
	root   string
	sick   bool // the binary ends with the word sick
	answer atomic.Pointer[string]
}

// take reads the fleet file and returns its checksum. Words in the file change what happens: with
// "broken", take rejects the file; with "sick", the process is unhealthy; with "slow", take waits
// for a file.
func (p *process) take() (sum string, err error) {
	conf, err := os.ReadFile(filepath.Join(p.root, "etc/kaiku/fleet.yaml"))
	if err != nil {
		return "", err
	}
	if bytes.Contains(conf, []byte("broken")) {
		return deploy.FleetSum(conf), errors.New("fleet.yaml is broken")
	}
	for bytes.Contains(conf, []byte("slow")) {
		if _, err := os.Stat(filepath.Join(p.root, "run/go")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	answer := "ok"
	if p.sick || bytes.Contains(conf, []byte("sick")) {
		answer = "sick"
	}
	p.answer.Store(&answer)
	return deploy.FleetSum(conf), nil
}

// note replaces a file in one step.
func (p *process) note(name, text string) error {
	file := filepath.Join(p.root, "run", name)
	return errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file))
}

// serve writes its address to a file to signal that it is ready.
func serve(root string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	p := &process{root: root, sick: bytes.HasSuffix(self, []byte("sick"))}
	runs, err := p.take()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	if err := errors.Join(p.note("status", deploy.Taken(runs)), p.note("ready", l.Addr().String())); err != nil {
		return err
	}
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				fmt.Fprintln(os.Stderr, "the old one ends")
				os.Exit(0)
			}
			sum, err := p.take()
			if err != nil {
				_ = p.note("status", deploy.NotTaken(runs, sum, err))
				continue
			}
			runs = sum
			_ = p.note("status", deploy.Taken(runs))
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, *p.answer.Load())
		c.Close()
	}
}
