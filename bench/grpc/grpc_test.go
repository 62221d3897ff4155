// Package grpc tests that gRPC passes through an edge. A client and a server of grpc-go talk
// through the program bin/kaiku. The package is a module of its own, to keep grpc-go out of
// Kaiku's module.
package grpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// server implements the methods of the service.
type server struct {
	cancelled chan struct{} // closed when a waiting call is cancelled
}

func (*server) say(ctx context.Context, name string) (*wrapperspb.StringValue, error) {
	if name == "" {
		return nil, status.Error(codes.NotFound, "nobody: 100 %")
	}
	sent, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-head-bin", strings.Join(sent["x-sent-bin"], ",")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t"))
	return wrapperspb.String("hello " + name), nil
}

// chat answers each message before it reads the next one.
func (s *server) chat(stream grpc.ServerStream) error {
	stream.SetTrailer(metadata.Pairs("x-tail", "t"))
	for {
		var in wrapperspb.StringValue
		err := stream.RecvMsg(&in)
		if errors.Is(err, io.EOF) {
			return stream.SendMsg(wrapperspb.String("bye"))
		}
		if err != nil {
			return err
		}
		if in.Value == "wait" {
			<-stream.Context().Done()
			close(s.cancelled)
			return stream.Context().Err()
		}
		if err := stream.SendMsg(wrapperspb.String("re: " + in.Value)); err != nil {
			return err
		}
	}
}

// service returns the description that protoc would generate for the service.
func service() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "test.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(s any, ctx context.Context, decode func(any) error,
			_ grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.StringValue
			if err := decode(&in); err != nil {
				return nil, err
			}
			return s.(*server).say(ctx, in.Value)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Chat", ServerStreams: true, ClientStreams: true,
			Handler: func(s any, stream grpc.ServerStream) error { return s.(*server).chat(stream) }}}}
}

// certificate returns a self-signed certificate, and writes its files.
func certificate(t *testing.T, dir string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"www.example.com", "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "tls.crt"), public, 0o644),
		os.WriteFile(filepath.Join(dir, "tls.key"), secret, 0o600)); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(public, secret)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(public)
	return pair, roots
}

// freeAddr returns an address that nothing listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startEdge starts an edge whose origin is on a port of localhost. It returns the edge's address
// for TLS.
func startEdge(t *testing.T, dir, port string) string {
	t.Helper()
	https, admin := freeAddr(t), freeAddr(t)
	config := filepath.Join(dir, "fleet.yaml")
	text := fmt.Sprintf(`sites: [{ name: www, hosts: [www.example.com], origin: { servers: ["https://localhost:%s"], ca: tls.crt } }]
nodes: { hel1: { roles: [edge], location: [0, 0], addresses: [127.0.0.1], edge: { http: %q, https: %q, admin: %q, data: %s, disk: 256MiB } } }
tls: { certificates: [{ cert: tls.crt, key: tls.key }] }
`, port, freeAddr(t), https, admin, filepath.Join(dir, "data"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := os.Getenv("KAIKU")
	if program == "" {
		program = "../../bin/kaiku"
	}
	edge := exec.CommandContext(t.Context(), program, "edge", "--config", config, "--node", "hel1")
	edge.Stdout, edge.Stderr = t.Output(), t.Output()
	edge.Cancel = func() error { return edge.Process.Signal(syscall.SIGTERM) }
	if err := edge.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = edge.Wait() })
	return https
}

// TestRealGRPC tests unary and streaming calls with metadata in both directions, statuses
// and cancellation.
func TestRealGRPC(t *testing.T) {
	dir := t.TempDir()
	pair, roots := certificate(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{cancelled: make(chan struct{})}
	origin := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	origin.RegisterService(service(), s)
	go func() { _ = origin.Serve(l) }()
	t.Cleanup(origin.Stop)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	conn, err := grpc.NewClient(startEdge(t, dir, port), grpc.WithTransportCredentials(
		credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "www.example.com"})),
		grpc.WithAuthority("www.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	var out wrapperspb.StringValue
	var head, tail metadata.MD
	if err := conn.Invoke(metadata.AppendToOutgoingContext(ctx, "x-sent-bin", "\x00\xff"), "/test.Test/Say",
		wrapperspb.String("ann"), &out, grpc.WaitForReady(true), grpc.Header(&head), grpc.Trailer(&tail)); err != nil ||
		out.Value != "hello ann" {
		t.Fatalf("unary: %q, %v", out.Value, err)
	}
	if fmt.Sprintf("%q %q", head["x-head-bin"], tail["x-tail"]) != `["\x00\xff"] ["t"]` {
		t.Errorf("unary: header %q, trailer %q", head, tail)
	}
	err = conn.Invoke(ctx, "/test.Test/Say", wrapperspb.String(""), &out)
	if st, _ := status.FromError(err); st.Code() != codes.NotFound || st.Message() != "nobody: 100 %" {
		t.Errorf("an error: %v", err)
	}
	err = conn.Invoke(ctx, "/test.Test/None", wrapperspb.String(""), &out)
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
	chat(t, ctx, conn, strings.Repeat("long ", 100_000))
	chat(t, ctx, conn, "two")

	short, giveUp := context.WithCancel(ctx)
	stream := open(t, short, conn)
	if err := stream.SendMsg(wrapperspb.String("wait")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, giveUp)
	if err := stream.RecvMsg(&out); status.Code(err) != codes.Canceled {
		t.Errorf("a call that was cancelled: %v", err)
	}
	<-s.cancelled // the test times out if the call is not cancelled
}

// open opens a stream.
func open(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &service().Streams[0], "/test.Test/Chat")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// chat sends each message after the answer to the previous one, and then ends the stream.
func chat(t *testing.T, ctx context.Context, conn *grpc.ClientConn, text string) {
	t.Helper()
	stream := open(t, ctx, conn)
	for _, word := range []string{"one", text, "three"} {
		if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
			t.Fatal(err)
		}
		var in wrapperspb.StringValue
		if err := stream.RecvMsg(&in); err != nil || in.Value != "re: "+word {
			t.Fatalf("the answer to %.20q is %.20q, %v", word, in.Value, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var last wrapperspb.StringValue
	if err := stream.RecvMsg(&last); err != nil || last.Value != "bye" {
		t.Errorf("the last message is %q, %v", last.Value, err)
	}
	if err := stream.RecvMsg(&last); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v", err)
	}
	if tail := stream.Trailer()["x-tail"]; len(tail) != 1 || tail[0] != "t" {
		t.Errorf("the trailers are %q", stream.Trailer())
	}
}
