package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// adminAPI is how commands reach an admin listener.
type adminAPI struct {
	url       string
	tokenFile string
	timeout   time.Duration // of a call; 0 means 6 minutes
}

func (a *adminAPI) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.url, "admin", "http://127.0.0.1:9080", "`URL` of an edge's admin listener")
	cmd.Flags().StringVar(&a.tokenFile, "token-file", "", "file with the admin token")
}

// call sends in, if it is not nil, as JSON and decodes the answer into out.
func (a *adminAPI) call(ctx context.Context, method, path string, in, out any) error {
	base := a.url
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, body)
	if err != nil {
		return usageError{fmt.Errorf("--admin: %w", err)}
	}
	r.Header.Set("Content-Type", "application/json")
	if a.tokenFile != "" {
		token, err := readToken(a.tokenFile)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Timeout: first(a.timeout, 6*time.Minute)}).Do(r)
	if err != nil {
		return fmt.Errorf("%w: is the edge running, and is --admin its admin address?", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(answer, &e) != nil || e.Error == "" {
			e.Error = string(bytes.TrimSpace(answer))
		}
		return fmt.Errorf("%s: %s", resp.Status, e.Error)
	}
	return json.Unmarshal(answer, out)
}
