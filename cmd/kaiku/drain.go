package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// drainCommand makes `kaiku drain` or, without drain, `kaiku undrain`.
func drainCommand(etc string, drain bool) *cobra.Command {
	api := adminAPI{etc: etc}
	name, short, method := "drain", "Stop sending new clients to a node, until undrain", "PUT"
	if !drain {
		name, short, method = "undrain", "Send clients to a drained node again", "DELETE"
	}
	cmd := &cobra.Command{
		Use:   name + " NODE",
		Short: short,
		Args:  usage(wants("NODE")),

		ValidArgsFunction: completeNode(etc, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if api.url == "" && api.config != "" {
				f, err := config.Read(api.config)
				if err != nil {
					return needsRoot(err)
				}
				if _, err := f.WantNode(name, args[0]); err != nil {
					return err
				}
			}
			var out any
			if _, err := api.call(cmd, method, "/v1/nodes/"+url.PathEscape(args[0])+"/drain", nil, &out); err != nil {
				return fmt.Errorf("%s %s: %w", name, args[0], err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(),
				"%s: %s done; name servers apply it within seconds, resolvers when the TTL has expired\n", args[0], name)
			return err
		},
	}
	api.flags(cmd)
	return cmd
}
