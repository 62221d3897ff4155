package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge"
)

func purgeCommand() *cobra.Command {
	var req edge.PurgeRequest
	var admin, tokenFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "purge URL… | --tag T… | --prefix P… | --host H | --all",
		Short: "Make cached content gone, or stale with --soft",
		Example: `  kaiku purge https://www.example.com/style.css
  kaiku purge --tag product-17 --tag front-page
  kaiku purge --prefix https://www.example.com/img/ --soft`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.URLs = args
			if len(req.URLs)+len(req.Tags)+len(req.Prefixes)+len(req.Hosts) == 0 && !req.All {
				return usageError{errors.New("nothing to purge: name URLs, --tag, --prefix, --host or --all; see kaiku purge --help")}
			}
			token := ""
			if tokenFile != "" {
				var err error
				if token, err = readToken(tokenFile); err != nil {
					return err
				}
			}
			var done edge.PurgeResponse
			if err := callAdmin(cmd, admin, "/v1/purge", token, req, &done); err != nil {
				return fmt.Errorf("purge: %w", err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(done)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "purged, sequence %d\n", done.Sequence)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&req.Tags, "tag", nil, "what carries this tag (may be repeated)")
	fl.StringArrayVar(&req.Prefixes, "prefix", nil, "what has a URL that begins so (may be repeated)")
	fl.StringArrayVar(&req.Hosts, "host", nil, "what is of this host (may be repeated)")
	fl.BoolVar(&req.All, "all", false, "everything")
	fl.BoolVar(&req.Soft, "soft", false, "make it stale instead of gone")
	fl.StringVar(&admin, "admin", "http://127.0.0.1:9080", "`URL` of an edge's admin listener")
	fl.StringVar(&tokenFile, "token-file", "", "file with the admin token")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// callAdmin sends a request to an admin API and decodes the answer.
func callAdmin(cmd *cobra.Command, admin, path, token string, in, out any) error {
	if !strings.Contains(admin, "://") {
		admin = "http://" + admin
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, strings.TrimSuffix(admin, "/")+path, bytes.NewReader(body))
	if err != nil {
		return usageError{fmt.Errorf("--admin: %w", err)}
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(r)
	if err != nil {
		return fmt.Errorf("%w: is the edge running, and is --admin its admin address?", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
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
