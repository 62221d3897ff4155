package node

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kaiku-cdn/kaiku/deploy"
)

// A process gets its listeners as systemd passes them. It answers a connection that was made before
// it started.
func TestInherited(t *testing.T) {
	if os.Getenv("KAIKU_TEST_INHERIT") != "" {
		os.Setenv("LISTEN_PID", os.Getenv("KAIKU_TEST_INHERIT_PID"))
		inheritedChild()
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String()) // waits in the listen queue
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	socket := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	// exec keeps the PID, which is what systemd expects.
	cmd := exec.Command("sh", "-c", `KAIKU_TEST_INHERIT_PID=$$ exec "$0" -test.run '^TestInherited$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "KAIKU_TEST_INHERIT="+l.Addr().String(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+socket)
	cmd.ExtraFiles = []*os.File{file}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v\n%s", b, err, out.String())
	}
	state := make([]byte, 100)
	if n, err := told.Read(state); err != nil || string(state[:n]) != "READY=1\nSTATUS=runs the fleet file a1" {
		t.Errorf("systemd was told %q, %v", state[:n], err)
	}
}

func inheritedChild() {
	in, err := takeInherited()
	if err != nil {
		panic(err)
	}
	l, err := in.listen(context.Background(), os.Getenv("KAIKU_TEST_INHERIT"))
	if err != nil {
		panic(err)
	}
	if err := (readiness{in: in, status: deploy.Taken("a1")}).Listen(context.Background()); err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(c, "hello")
	c.Close()
}

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		at, addr string
		want     bool
	}{
		{"[::]:80", ":80", true}, {"0.0.0.0:80", ":80", true}, {"[::]:80", "0.0.0.0:http", true}, {"[::]:80", ":443",
			false},
		{"192.0.2.1:80", "192.0.2.1:80", true}, {"192.0.2.1:80", ":80", false}, {"[::]:80", "192.0.2.1:80", false},
		{"127.0.0.1:80", "localhost:80", true},
	} {
		at, err := net.ResolveTCPAddr("tcp", c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameAddress(at, c.addr); got != c.want {
			t.Errorf("%s is %s: %v", c.at, c.addr, got)
		}
	}
}
