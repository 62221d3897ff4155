package main

import (
	"bufio"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/kaiku-cdn/kaiku/bench/peer"
)

// conf has the configurations of the peers, with reasons for their settings.
//
//go:embed conf
var conf embed.FS

// server is a program to measure.
type server struct {
	name    string
	needs   peer.Package
	version []string
	// files has the templates in conf, with their paths in the peer's folder.
	files map[string]string
	dirs  []string
	// owner is the user who must own the folder; "" means the user of this program.
	owner string
	// command returns the command line to run in the folder dir. second returns the command line of
	// a second cache for cases with a shield. It is nil if one program does both.
	command func(dir string) ([]string, error)
	second  func(dir string) ([]string, error)
	env     []string
}

const caddyHelp = "(not from Debian, whose is old) golang; then cd bench/caddy && CGO_ENABLED=0 go build -trimpath -o ../../bin/caddy ."

// allServers returns all peers. before is the program of another version of Kaiku; "" means none.
func allServers(kaiku, before, caddy string) []server {
	fixed := func(args ...string) func(string) ([]string, error) {
		return func(dir string) ([]string, error) {
			all := make([]string, len(args))
			for i, a := range args {
				all[i] = strings.ReplaceAll(a, "DIR", dir)
			}
			return all, nil
		}
	}
	edge := func(name, program string) server {
		return server{name: name, needs: peer.Package{Program: program, Install: "golang; then make build"},
			version: []string{program, "version"},
			files:   map[string]string{"kaiku.yaml": "fleet.yaml", "fleet.key": "fleet.key"},
			command: fixed(program, "edge", "--config", "DIR/fleet.yaml", "--node", "x"),
			second:  fixed(program, "edge", "--config", "DIR/fleet.yaml", "--node", "shield")}
	}
	var all []server
	if before != "" {
		all = append(all, edge("before", before))
	}
	return append(all, []server{
		edge("kaiku", kaiku),
		{name: "nginx", needs: peer.Package{Program: "nginx", Install: "nginx-light"}, version: []string{"nginx", "-v"},
			files: map[string]string{"nginx.conf": "nginx.conf"}, command: fixed("nginx", "-p", "DIR", "-c",
				"DIR/nginx.conf", "-e", "DIR/error.log", "-g", "daemon off;")},
		{name: "varnish", needs: peer.Package{Program: "varnishd", Install: "varnish"},
			version: []string{"varnishd", "-V"},
			files:   map[string]string{"varnish.vcl": "varnish.vcl", "varnish.args": "args"}, command: varnishCommand},
		{name: "trafficserver", needs: peer.Package{Program: "traffic_server", Install: "trafficserver"},
			version: []string{"traffic_server", "-V"},
			files: map[string]string{"ats.records.config": "etc/records.config", "ats.remap.config": "etc/remap.config",
				"ats.storage.config":       "etc/storage.config",
				"ats.ip_allow.yaml":        "etc/ip_allow.yaml",
				"ats.ssl_multicert.config": "etc/ssl_multicert.config", "ats.runroot.yaml": "runroot.yaml"},
			dirs: []string{"run", "log", "cache"}, owner: "trafficserver", command: fixed("traffic_server",
				"--run-root=DIR/runroot.yaml")},
		{name: "caddy", needs: peer.Package{Program: caddy, Install: caddyHelp}, version: []string{caddy, "version"},
			files: map[string]string{"Caddyfile": "Caddyfile"}, command: fixed(caddy, "run", "--config",
				"DIR/Caddyfile", "--adapter", "caddyfile"),
			env: []string{"HOME=/nonexistent"}},
	}...)
}

// varnishCommand reads the arguments from a file, one per line.
func varnishCommand(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, "args"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	args := []string{"varnishd"}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			args = append(args, line)
		}
	}
	return args, nil
}

// host is the host name in all requests.
const host = "localhost"

// instance is a running peer.
type instance struct {
	setup
	server  *server
	process *peer.Process
	second  *peer.Process // nil if there is none

	Dir, Port, TLSPort, AdminPort string
	ShieldPort, PeerPort          string
	Host, Cert, Key, Files        string
	Origin                        string
	// warmed has the sets of objects that are warm.
	warmed map[string]bool
}

// OriginHost returns the origin's address without the port.
func (i *instance) OriginHost() string { h, _, _ := net.SplitHostPort(i.Origin); return h }

// OriginPort returns the origin's port.
func (i *instance) OriginPort() string { _, p, _ := net.SplitHostPort(i.Origin); return p }

// MemoryBytes returns the size of the RAM tier in bytes.
func (i *instance) MemoryBytes() int64 { return int64(i.Memory) << 20 }

// OpenFiles returns how many files a process may have open, besides those of idle connections.
func (*instance) OpenFiles() uint64 {
	var limit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) // can't fail: it worked at the start
	return min(limit.Cur-idleConns*11/10, 200_000)
}

// VSLMask masks everything that Varnish 7 logs about a request.
func (*instance) VSLMask() string {
	var all []string
	for _, tag := range strings.Fields(`Debug Error CLI SessOpen SessClose BackendOpen BackendClose HttpGarbage Length FetchError
		ReqMethod ReqURL ReqStatus ReqReason ReqProtocol ReqHeader ReqUnset ReqLost RespMethod RespURL RespStatus RespReason RespProtocol RespHeader RespUnset RespLost
		BereqMethod BereqURL BereqStatus BereqReason BereqProtocol BereqHeader BereqUnset BereqLost BerespMethod BerespURL BerespStatus BerespReason BerespProtocol
		BerespHeader BerespUnset BerespLost ObjProtocol ObjStatus ObjReason ObjHeader BogoHeader LostHeader TTL Fetch_Body VCL_acl VCL_call VCL_trace VCL_return ReqStart
		Hit HitPass ExpBan ExpKill WorkThread Hash Backend_health VCL_Log VCL_Error Gzip Link Begin End VSL Storage Timestamp ReqAcct PipeAcct BereqAcct VfpAcct
		Witness H2RxHdr H2RxBody H2TxHdr H2TxBody HitMiss Filters SessError VCL_use Notice VdpAcct`) {
		all = append(all, "-"+tag)
	}
	return strings.Join(all, ",")
}

// Workers returns the number of cores that the peer has.
func (i *instance) Workers() int { return 1 + strings.Count(i.Cores, ",") }

// start starts a peer, and waits until it accepts connections.
func (b *bench) start(ctx context.Context, s *server, with setup) (i *instance, err error) {
	i = &instance{setup: with, server: s, Host: host, Cert: b.cert, Key: b.key, Files: b.files, Origin: b.origin.addr,
		warmed: map[string]bool{}}
	if i.Dir, err = os.MkdirTemp(b.dir, s.name); err != nil {
		return nil, err
	}
	for _, p := range []*string{&i.Port, &i.TLSPort, &i.AdminPort, &i.ShieldPort, &i.PeerPort} {
		if *p, err = peer.FreePort(); err != nil {
			return nil, err
		}
	}
	if err := i.write(); err != nil {
		return nil, err
	}
	if err := i.giveAway(); err != nil {
		return nil, err
	}
	if i.process, err = b.run(ctx, i, s.command); err != nil {
		return nil, err
	}
	await := []string{i.Port}
	if with.Shield {
		await = append(await, i.ShieldPort)
		if s.second != nil {
			if i.second, err = b.run(ctx, i, s.second); err != nil {
				return nil, errors.Join(err, errors.New(i.stop()))
			}
		}
	}
	for _, port := range await {
		if err := i.await(ctx, port); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", s.name, err, i.stop())
		}
	}
	return i, nil
}

// run starts one program of a peer.
func (b *bench) run(ctx context.Context, i *instance, command func(string) ([]string, error)) (*peer.Process, error) {
	args, err := command(i.Dir)
	if err != nil {
		return nil, err
	}
	return peer.Start(ctx, cmp.Or(i.Cores, peerCore), i.server.env, args...)
}

// await waits until the peer accepts connections.
func (i *instance) await(ctx context.Context, port string) error {
	for range 400 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-i.process.Ended():
			return errors.New("ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("takes no connections after 20 s")
}

// cpu returns the CPU time of the peer's processes.
func (i *instance) cpu() (time.Duration, error) {
	total, err := i.process.CPU()
	if err != nil || i.second == nil {
		return total, err
	}
	second, err := i.second.CPU()
	return total + second, err
}

// rss returns the resident memory of the peer's processes in bytes.
func (i *instance) rss() int64 {
	if i.second == nil {
		return i.process.RSS()
	}
	return i.process.RSS() + i.second.RSS()
}

// write writes the peer's configuration files.
func (i *instance) write() error {
	for _, dir := range i.server.dirs {
		if err := os.MkdirAll(filepath.Join(i.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	for from, to := range i.server.files {
		t, err := template.ParseFS(conf, "conf/"+from)
		if err != nil {
			return err
		}
		path := filepath.Join(i.Dir, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := t.Execute(f, i); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// giveAway changes the owner of the folder.
func (i *instance) giveAway() error {
	if i.server.owner == "" {
		return nil
	}
	u, err := user.Lookup(i.server.owner)
	if err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return filepath.WalkDir(i.Dir,
		func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chown(path, uid, gid)) })
}

// stop ends the peer, deletes its files, and returns what it printed.
func (i *instance) stop() string {
	out := i.process.Stop()
	if i.second != nil {
		out += i.second.Stop()
	}
	if log, err := os.ReadFile(filepath.Join(i.Dir, "error.log")); err == nil {
		out += string(log)
	}
	_ = os.RemoveAll(i.Dir)
	return out
}

// addr returns the address on which the peer listens for a protocol.
func (i *instance) addr(proto string) string {
	if proto == "http1" {
		return net.JoinHostPort("127.0.0.1", i.Port)
	}
	return net.JoinHostPort("127.0.0.1", i.TLSPort)
}

// url returns the URL of an object.
func (i *instance) url(proto string, o object) string {
	if proto == "http1" {
		return "http://" + net.JoinHostPort(host, i.Port) + o.path()
	}
	return "https://" + net.JoinHostPort(host, i.TLSPort) + o.path()
}
