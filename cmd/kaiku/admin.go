package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// defaultAdmin is the admin listener of an edge that has no fleet file.
const defaultAdmin = "http://127.0.0.1:9080"

// adminAPI has the flags by which a command reaches the admin listeners of nodes.
type adminAPI struct {
	etc       string // folder of the fleet file on a node
	url       string
	tokenFile string
	config    string
	node      string
	verbose   bool
	timeout   time.Duration // of a call; 0 means 6 minutes
	edges     bool          // only edges answer this command
}

func (a *adminAPI) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&a.config, "config", "",
		"fleet `FILE`: connect to its nodes over SSH (default: connect to the node on this machine, with "+a.etc+"/fleet.yaml)")
	fl.StringVar(&a.url, "admin", "", "`URL` of an admin listener (default "+defaultAdmin+" if there is no fleet file)")
	fl.StringVar(&a.tokenFile, "token-file", "",
		"`FILE` with the admin token (default secrets.admin_token of the fleet file)")
	fl.BoolVar(&a.verbose, "verbose", false, "print which node answers, and which nodes don't")
}

// nodeFlag adds the flag --node, for commands where it matters which node answers.
func (a *adminAPI) nodeFlag(cmd *cobra.Command, text string) {
	cmd.Flags().StringVar(&a.node, "node", "", text)
}

// apiError is an error response of the admin API.
type apiError struct {
	status int
	text   string
}

// Error returns the status and the message of the API.
func (e *apiError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.text)
}

// call sends a request to the first node that answers, and returns that node. It sends in as JSON,
// unless in is nil, and decodes the response into out. A node that can't be reached or answers 503
// (Service Unavailable) is skipped.
func (a *adminAPI) call(cmd *cobra.Command, method, path string, in, out any) (*adminNode, error) {
	nodes, err := a.open(cmd)
	if err != nil {
		return nil, err
	}
	defer nodes.close()
	ctx := cmd.Context()
	for {
		n := nodes.connect(ctx)
		if n == nil {
			return nil, nodes.err(ctx)
		}
		err := n.call(ctx, cmp.Or(a.timeout, 6*time.Minute), method, path, in, out)
		var answer *apiError
		if err == nil || errors.As(err, &answer) && answer.status != http.StatusServiceUnavailable || ctx.Err() != nil {
			return n, n.wrap(err)
		}
		nodes.failed(n, err) // another node may be able to answer
	}
}

// call sends a request to this node. Any status but 200 is an error.
func (n *adminNode) call(ctx context.Context, timeout time.Duration, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, n.url+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if n.token != "" {
		r.Header.Set("Authorization", "Bearer "+n.token)
	}
	client := &http.Client{Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if n.conn != nil {
		t := &http.Transport{DialContext: n.conn.DialContext, DisableKeepAlives: true}
		client.Transport = t
	}
	resp, err := client.Do(r)
	if err != nil {
		return n.unreached(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return n.refused(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the server at %s is not an admin listener: %w", n.url, err)
	}
	return nil
}

// unreached returns an error for a node that does not answer, with a hint at what to check.
func (n *adminNode) unreached(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the URL is repeated below
	}
	switch {
	case n.ssh != "":
		return fmt.Errorf("connect to its admin listener on %s: %w: is kaiku running there? Run kaiku health on the node", n.host(),
			err)
	case n.name != "":
		return fmt.Errorf("connect to its admin listener on %s: %w: is kaiku running here? See systemctl status kaiku", n.host(), err)
	}
	return fmt.Errorf("connect to %s: %w: is an edge running there? For a fleet, give --config fleet.yaml; for another admin listener, --admin URL", n.url, err)
}

// refused turns an error response into an error that says what to do about it.
func (n *adminNode) refused(status int, body []byte) error {
	var e struct{ Error string }
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		return &apiError{status, fmt.Sprintf("the server at %s is not an admin listener: %.100q", n.url, body)}
	}
	switch {
	case status == http.StatusUnauthorized && n.token == "":
		e.Error = "it needs a token, and none was given"
		if n.tokenFile != "" {
			e.Error = fmt.Sprintf("it needs a token, and %s doesn't exist", n.tokenFile)
		}
		e.Error += ": give the node's token by --token-file FILE (on a node of a fleet, the file is " + config.NodeDir +
			"/admin.token)"
	case status == http.StatusUnauthorized:
		e.Error = fmt.Sprintf("it refuses the token in %s: give the node's own token by --token-file FILE (on a node of a fleet, the file is %s/admin.token), "+
			"or install this one with kaiku deploy", n.tokenFile, config.NodeDir)
	case status == http.StatusForbidden && n.tokenFile != "":
		e.Error += " (the token is from " + n.tokenFile + ")"
	}
	return &apiError{status, e.Error}
}

func (n *adminNode) host() string {
	_, host, _ := strings.Cut(n.url, "://")
	return host
}

// wrap adds the node's name to an error.
func (n *adminNode) wrap(err error) error {
	if err == nil || n.name == "" {
		return err
	}
	return fmt.Errorf("node %s: %w", n.name, err)
}
