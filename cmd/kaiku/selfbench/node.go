package selfbench

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// host is the name of the site that is measured.
const host = "www.bench.example"

// child is the node under test.
type child struct {
	cmd               *exec.Cmd
	log               bytes.Buffer // read only after ended
	ended             chan struct{}
	http, https, dns  string // addresses
	plainZone, signed string // names that its name server answers
}

// startChild starts program as a node that is an edge and a name server, with its files in dir.
// origin is the address of the origin.
func startChild(ctx context.Context, program, dir, origin string) (*child, error) {
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	c := &child{ended: make(chan struct{}), http: ports[0], https: ports[1], dns: ports[4],
		plainZone: "www.plain.example", signed: "www.signed.example"}
	if err := writeFiles(dir, origin, ports); err != nil {
		return nil, err
	}
	c.cmd = exec.CommandContext(ctx, program, "serve", "--config", filepath.Join(dir, "fleet.yaml"), "--node", "bench")
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 5 * time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	return c, c.await(ctx)
}

// await waits until the node answers.
func (c *child) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http+"/.kaiku/health", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the node ended: %s", c.log.String())
		case <-ctx.Done():
			return errors.New("the node doesn't answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the node and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	<-c.ended
}

// cpu returns the CPU time that the node has used.
func (c *child) cpu() (time.Duration, error) {
	var t unix.Timespec
	// The clock of another process's CPU time, as clock_getcpuclockid(3) makes it.
	if err := unix.ClockGettime(int32(^c.cmd.Process.Pid<<3|2), &t); err != nil {
		return 0, fmt.Errorf("read the node's CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

var anonymous = regexp.MustCompile(`RssAnon:\s+(\d+) kB`)

// memory returns the node's anonymous memory in bytes.
func (c *child) memory() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	m := anonymous.FindSubmatch(b)
	if m == nil {
		return 0, errors.New("/proc/PID/status has no RssAnon")
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	return n * 1024, err
}

// freePorts returns loopback addresses that nobody listens on.
func freePorts(n int) (list []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		list = append(list, l.Addr().String())
	}
	return list, nil
}

const fleetFile = `sites:
  - name: bench
    hosts: [` + host + `, www.plain.example, www.signed.example]
    origin: { servers: ["http://%[2]s"] }
nodes:
  bench: { roles: [edge, geodns], location: [60.17, 24.94], addresses: [127.0.0.1] }
tls: { certificates: [{ cert: %[1]s/cert.pem, key: %[1]s/key.pem }] }
edge:
  http: "%[3]s"
  https: "%[4]s"
  admin: "%[5]s"
  peer: "%[6]s"
  data: %[1]s/data
  disk: 4GiB
  memory: 256MiB
geodns:
  listen: "%[7]s"
  rate_limit: { responses: -1, errors: -1 }
  zones:
    - { name: plain.example, file: plain.zone, edges: { www: {} } }
    - { name: signed.example, file: signed.zone, edges: { www: {} }, dnssec: { key: %[1]s/signed.key } }
log: { level: warn }
`

const zoneFile = `$ORIGIN %s.example.
@ 300 SOA ns1 hostmaster 1 3600 600 86400 60
@ 300 NS ns1
ns1 300 A 127.0.0.1
`

// writeFiles writes the files of a node.
func writeFiles(dir, origin string, ports []string) error {
	key, err := dnssec.Generate()
	if err != nil {
		return err
	}
	keys, err := dnssec.Keys{key}.Format()
	if err != nil {
		return err
	}
	cert, private, err := certificate()
	if err != nil {
		return err
	}
	fleet := fmt.Sprintf(fleetFile, dir, origin, ports[0], ports[1], ports[2], ports[3], ports[4])
	for name, text := range map[string][]byte{"fleet.yaml": []byte(fleet), "signed.key": keys, "cert.pem": cert,
		"key.pem": private, "plain.zone": fmt.Appendf(nil, zoneFile, "plain"),
		"signed.zone": fmt.Appendf(nil, zoneFile, "signed")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// certificate returns a self-signed P-256 certificate for host, and its key, as PEM.
func certificate() (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}
