package world

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMain also runs as the program whose clock is stepped: it prints the time whenever it reads
// a line.
func TestMain(m *testing.M) {
	if os.Getenv("KAIKU_TELL_TIME") != "" {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			now := time.Now()
			fmt.Println(now.Unix(), time.Since(now) < time.Hour)
		}
		return
	}
	os.Exit(m.Run())
}

func TestStepClock(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), "KAIKU_TELL_TIME=1")
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := p.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	answers := bufio.NewReader(out)
	for _, step := range []time.Duration{0, 2 * time.Hour, -time.Hour, 0} {
		if err := p.StepClock(step); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(in)
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var unix int64
		var monotonic bool
		if _, err := fmt.Sscan(line, &unix, &monotonic); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if off := time.Unix(unix, 0).Sub(time.Now().Add(step)); off < -5*time.Second || off > 5*time.Second ||
			!monotonic {
			t.Errorf("a clock that was stepped by %v is %v off", step, off)
		}
	}
}
