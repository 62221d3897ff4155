package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/words"
	"github.com/kaiku-cdn/kaiku/edge/admin"
)

// warmTime limits one request to warm an edge.
const warmTime = time.Hour

func warmCommand(etc string) *cobra.Command {
	req := admin.WarmRequest{}
	api := adminAPI{etc: etc, edges: true}
	var sitemapURL string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "warm URL… | --sitemap URL",
		Short: "Fetch content into edges before clients ask for it",
		Long: `Fetch content into edges before clients ask for it: with --config into all edges of the fleet, on a
node into that edge.`,
		Example: `  kaiku warm https://www.example.com/ https://www.example.com/style.css
  kaiku warm --sitemap https://www.example.com/sitemap.xml --rate 50
  kaiku warm --config fleet.yaml --node hel1 https://www.example.com/`,
		ValidArgsFunction: completeURLs(etc),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (sitemapURL == "") {
				return usageError{errors.New("give URLs or a --sitemap, but not both; see kaiku warm --help")}
			}
			if req.Rate < 1 || req.Rate > 1000 {
				return usageError{fmt.Errorf("--rate: want 1 to 1000 a second, not %d", req.Rate)}
			}
			nodes, err := api.open(cmd)
			if err != nil {
				return fmt.Errorf("warm: %w", err)
			}
			defer nodes.close()
			w := newWarming(nodes, req.Rate)
			if sitemapURL == "" {
				err = w.send(cmd, args)
			} else {
				err = readSitemap(cmd.Context(), sitemapURL, func(urls []string) error { return w.send(cmd, urls) })
			}
			if err != nil {
				return fmt.Errorf("warm: %w", err)
			}
			return w.print(cmd, asJSON)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&sitemapURL, "sitemap", "", "warm all URLs of the sitemap, or of the sitemap index, at this `URL`")
	fl.IntVar(&req.Rate, "rate", 10, "URLs a second for each edge, at most 1000")
	api.flags(cmd)
	api.nodeFlag(cmd, "`EDGE` to warm (default all, with --config)")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// warming has the result of each edge.
type warming struct {
	nodes *adminNodes
	rate  int
	edges []warmedEdge // in the order of nodes.list
}

type warmedEdge struct {
	Node string `json:"node"`
	// Error is why the edge could not be queried any further.
	Error string `json:"error,omitempty"`
	admin.WarmResponse
}

func newWarming(nodes *adminNodes, rate int) *warming {
	w := &warming{nodes: nodes, rate: rate, edges: make([]warmedEdge, len(nodes.list))}
	for i, n := range nodes.list {
		w.edges[i] = warmedEdge{Node: n.name, WarmResponse: admin.WarmResponse{Failed: []admin.WarmFailure{}}}
	}
	return w
}

// send makes all edges fetch URLs, at the same time. It fails if no edge can be queried.
func (w *warming) send(cmd *cobra.Command, urls []string) error {
	ctx := cmd.Context()
	w.nodes.each(ctx, func(i int, n *adminNode) error {
		total := &w.edges[i]
		// A batch has as many URLs as an edge fetches in a minute, so that no request takes hours.
		for batch := range batches(urls, w.rate*60, 3<<20) {
			var done admin.WarmResponse
			if err := n.call(ctx, warmTime, "POST", "/v1/warm", admin.WarmRequest{URLs: batch, Rate: w.rate},
				&done); err != nil {
				return err
			}
			total.Asked += done.Asked
			total.Stored += done.Stored
			total.Failed = append(total.Failed, done.Failed...)
		}
		return nil
	})
	for i, n := range w.nodes.list {
		if n.err == nil {
			return nil
		}
		w.edges[i].Error = n.err.Error()
	}
	return w.nodes.err(ctx)
}

func (w *warming) print(cmd *cobra.Command, asJSON bool) error {
	out := cmd.OutOrStdout()
	requested, stored, failed := 0, 0, 0
	for i := range w.edges {
		e := &w.edges[i]
		if err := w.nodes.list[i].err; err != nil {
			e.Error = err.Error()
			failed++
		}
		requested += e.Asked
		stored += e.Stored
		if asJSON {
			continue
		}
		name := ""
		if e.Node != "" {
			name = e.Node + ": "
		}
		for _, f := range e.Failed {
			fmt.Fprintf(out, "%s%s  %s\n", name, f.URL, f.Error)
		}
		fmt.Fprintf(out, "%srequested %d, stored %d\n", name, e.Asked, e.Stored)
		if e.Error != "" {
			fmt.Fprintf(out, "%sit can't be queried: %s\n", name, e.Error)
		}
	}
	if asJSON {
		var v any = map[string]any{"nodes": w.edges}
		if !w.nodes.overSSH() {
			v = w.edges[0].WarmResponse
		}
		if err := json.NewEncoder(out).Encode(v); err != nil {
			return err
		}
	}
	switch {
	case failed > 0:
		return fmt.Errorf("warm: %d of %s can't be queried", failed, words.Count(len(w.edges), "edge"))
	case requested > stored:
		return fmt.Errorf("warm: %d of %d URLs are not stored", requested-stored, requested)
	}
	return nil
}

// batches splits a list into batches of at most count URLs and size bytes.
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
