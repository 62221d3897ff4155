package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge/purge"
)

// maxPurgeWait is how long an admin listener waits for edges at most.
const maxPurgeWait = 5 * time.Minute

func purgeCommand(etc string) *cobra.Command {
	var req purge.Request
	api := adminAPI{etc: etc}
	var asJSON, wait bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "purge URL… | --tag T… | --prefix P… | --host H | --all",
		Short: "Remove cached content, or make it stale with --soft",
		Long: `Remove cached content, or make it stale with --soft.

A URL is purged exactly as you write it, and a prefix matches every URL that begins with it. *
has no special meaning: to purge everything below a path, use --prefix with that path.`,
		Example: `  kaiku purge https://www.example.com/style.css
  kaiku purge --tag product-17 --tag front-page
  kaiku purge --prefix https://www.example.com/img/ --soft`,
		ValidArgsFunction: completeURLs(etc),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.URLs = args
			if len(req.URLs)+len(req.Tags)+len(req.Prefixes)+len(req.Hosts) == 0 && !req.All {
				return usageError{errors.New("nothing to purge: give URLs, --tag, --prefix, --host or --all; see kaiku purge --help")}
			}
			if err := refuseStars(req); err != nil {
				return usageError{err}
			}
			if limit <= 0 || limit > maxPurgeWait {
				return usageError{fmt.Errorf("--limit %v: want more than 0s, and at most %v", limit, maxPurgeWait)}
			}
			path := "/v1/purge"
			if wait {
				path += "?wait=all&limit=" + limit.String()
			}
			var done purge.Response
			if _, err := api.call(cmd, "POST", path, req, &done); err != nil {
				return fmt.Errorf("purge: %w", err)
			}
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(done); err != nil {
					return err
				}
				return lacking(done, limit)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "purged, sequence %d\n", done.Sequence)
			for _, e := range done.Edges {
				outcome := fmt.Sprintf("applied after %.0f ms", e.Seconds*1000)
				switch {
				case !e.Applied && !e.Live:
					outcome = "not applied: it is offline"
				case !e.Applied:
					outcome = "not applied yet"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", e.Node, outcome)
			}
			return lacking(done, limit)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&req.Tags, "tag", nil, "purge content with this `TAG` (may be repeated)")
	fl.StringArrayVar(&req.Prefixes, "prefix", nil, "purge every URL that begins with this `URL` (may be repeated)")
	fl.StringArrayVar(&req.Hosts, "host", nil, "purge everything of this `HOST` (may be repeated)")
	fl.BoolVar(&req.All, "all", false, "purge everything")
	fl.BoolVar(&req.Soft, "soft", false, "mark the content stale; edges revalidate it with the origin")
	fl.BoolVar(&wait, "wait", false, "wait until every edge has applied the purge, and print how long each took")
	fl.DurationVar(&limit, "limit", 10*time.Second, "how long --wait waits, at most 5m")
	api.flags(cmd)
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// refuseStars refuses URLs and prefixes that end in *: the API takes * literally, so such a purge
// would match nothing.
func refuseStars(req purge.Request) error {
	for _, u := range slices.Concat(req.URLs, req.Prefixes) {
		if base, found := strings.CutSuffix(u, "*"); found {
			return fmt.Errorf("%s: * has no special meaning: to purge everything that begins with the text before it, use --prefix %s",
				u, strings.TrimRight(base, "*"))
		}
	}
	return nil
}

// lacking returns an error that names the edges that have not applied a purge in time, or nil.
func lacking(done purge.Response, limit time.Duration) error {
	var names []string
	for _, e := range done.Edges {
		if !e.Applied {
			names = append(names, e.Node)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("purge %d is in the log, but not applied within %v by %s", done.Sequence, limit,
		strings.Join(names, ", "))
}
