package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

func dashboardCommand(etc string) *cobra.Command {
	api := adminAPI{etc: etc}
	var listen string
	var noBrowser bool
	cmd := &cobra.Command{
		Use:   "dashboard [NODE]",
		Short: "Open the page of a node, which shows the fleet, in a browser",
		Long: `Open the page of a node, which shows the fleet, in a browser.

With --config, dashboard connects to the node over SSH, as status does, and forwards a port of this
machine to the node's admin listener until you end it. Without NODE it takes the first node that
answers. On a node, it prints the address of that node's page.`,
		Args: usage(cobra.MaximumNArgs(1)),

		ValidArgsFunction: completeNode(etc, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				api.node = args[0]
			}
			if api.node != "" && api.url == "" && api.config == "" && !exists(etc+"/fleet.yaml") {
				api.config = fleetHere(etc)
			}
			nodes, err := api.open(cmd)
			if err != nil {
				return fmt.Errorf("dashboard: %w", err)
			}
			defer nodes.close()
			n := nodes.connect(cmd.Context())
			if n == nil {
				return fmt.Errorf("dashboard: %w", nodes.err(cmd.Context()))
			}
			if err := n.wrap(serveDashboard(cmd.Context(), cmd.OutOrStdout(), n, listen, noBrowser)); err != nil {
				return fmt.Errorf("dashboard: %w", err)
			}
			return nil
		},
	}
	api.flags(cmd)
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`ADDRESS` of this machine to forward; must be loopback")
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "only print the address")
	return cmd
}

// serveDashboard prints the address of a node's page, and opens it in a browser. It forwards a port
// to a node that is reached over SSH, until ctx ends.
func serveDashboard(ctx context.Context, out io.Writer, n *adminNode, listen string, noBrowser bool) error {
	address := n.url + "/"
	var l net.Listener
	if n.conn != nil {
		host, _, err := net.SplitHostPort(listen)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return usageError{fmt.Errorf("--listen %s: want an address of this machine only, such as 127.0.0.1:9090",
				listen)}
		}
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", listen); err != nil {
			return err
		}
		address = "http://" + l.Addr().String() + "/"
	}
	fmt.Fprintf(out, "%s\n", address)
	if n.tokenFile != "" && n.token != "" {
		fmt.Fprintf(out, "Sign in with the token in %s.\n", n.tokenFile)
	}
	if !noBrowser {
		openBrowser(ctx, address)
	}
	if l == nil {
		return nil
	}
	fmt.Fprintf(out, "This forwards to %s. Ctrl-C ends it.\n", cmp.Or(n.name, n.host()))
	return forwardConns(ctx, l, func(ctx context.Context) (net.Conn,
		error) {
		return n.conn.DialContext(ctx, "tcp", n.host())
	})
}

// openBrowser opens an address in the desktop's browser, if there is a desktop.
func openBrowser(ctx context.Context, address string) {
	program := "xdg-open"
	switch {
	case runtime.GOOS == "darwin":
		program = "open"
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return
	}
	if path, err := exec.LookPath(program); err == nil {
		_ = exec.CommandContext(context.WithoutCancel(ctx), path, address).Start() // the address is printed anyway
	}
}

// maxForwarded bounds the connections that are forwarded at a time. A page needs two or three.
const maxForwarded = 64

// forwardConns passes the connections of a listener on until ctx ends.
func forwardConns(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	room := make(chan struct{}, maxForwarded)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		room <- struct{}{}
		conns.Go(func() {
			defer func() { <-room }()
			passConn(ctx, c, dial)
		})
	}
}

// passConn passes one connection on until one side ends it.
func passConn(ctx context.Context, c net.Conn, dial func(context.Context) (net.Conn, error)) {
	defer c.Close()
	to, err := dial(ctx)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"+
			strings.ReplaceAll(err.Error(), "\n", " ")+"\n")
		return
	}
	defer to.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		c.Close()
		to.Close()
	})
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, to}, {to, c}} {
		both.Go(func() {
			defer cancel()
			_, _ = io.Copy(way[0], way[1])
		})
	}
	both.Wait()
	stop()
}
