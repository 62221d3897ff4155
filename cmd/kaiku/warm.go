package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge"
)

func warmCommand() *cobra.Command {
	var req edge.WarmRequest
	api := adminAPI{timeout: time.Hour}
	var sitemapURL string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "warm URL… | --sitemap URL",
		Short: "Fetch content into an edge before clients ask for it",
		Example: `  kaiku warm https://www.example.com/ https://www.example.com/style.css
  kaiku warm --sitemap https://www.example.com/sitemap.xml --rate 50`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (sitemapURL == "") {
				return usageError{errors.New("nothing to warm: name URLs, or --sitemap; see kaiku warm --help")}
			}
			if req.Rate < 1 || req.Rate > 1000 {
				return usageError{fmt.Errorf("--rate: want 1 to 1000 a second, not %d", req.Rate)}
			}
			total := edge.WarmResponse{Failed: []edge.WarmFailure{}}
			send := func(urls []string) error {
				// As many as go in a minute, so that one request is not for hours.
				for batch := range batches(urls, req.Rate*60, 3<<20) {
					var done edge.WarmResponse
					req.URLs = batch
					if err := api.call(cmd.Context(), "POST", "/v1/warm", req, &done); err != nil {
						return fmt.Errorf("warm: %w", err)
					}
					total.Asked += done.Asked
					total.Stored += done.Stored
					total.Failed = append(total.Failed, done.Failed...)
				}
				return nil
			}
			var err error
			if sitemapURL == "" {
				err = send(args)
			} else {
				err = readSitemap(cmd.Context(), sitemapURL, send)
			}
			if err != nil {
				return err
			}
			return printWarm(cmd, total, asJSON)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&sitemapURL, "sitemap", "", "what a sitemap at this `URL` names, or an index of sitemaps")
	fl.IntVar(&req.Rate, "rate", 10, "URLs a second, at most 1000")
	api.flags(cmd)
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printWarm(cmd *cobra.Command, total edge.WarmResponse, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(total); err != nil {
			return err
		}
	} else {
		for _, f := range total.Failed {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", f.URL, f.Error)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "asked for %d, stored %d\n", total.Asked, total.Stored)
	}
	if failed := total.Asked - total.Stored; failed > 0 {
		return fmt.Errorf("warm: %d of %d URLs are not stored", failed, total.Asked)
	}
	return nil
}

// batches cuts a list into parts of at most count URLs and size bytes.
func batches(urls []string, count, size int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(urls) > 0 {
			n, bytes := 0, 0
			for n < len(urls) && n < count && (n == 0 || bytes+len(urls[n]) < size) {
				bytes += len(urls[n]) + 8
				n++
			}
			if !yield(urls[:n]) {
				return
			}
			urls = urls[n:]
		}
	}
}
