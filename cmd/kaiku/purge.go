package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge"
)

func purgeCommand() *cobra.Command {
	var req edge.PurgeRequest
	var api adminAPI
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
			var done edge.PurgeResponse
			if err := api.call(cmd.Context(), "POST", "/v1/purge", req, &done); err != nil {
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
	api.flags(cmd)
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
