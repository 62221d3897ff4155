package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/fleet"
)

func credentialCommand() *cobra.Command {
	var fleetFile, node, out string
	cmd := &cobra.Command{
		Use:   "credential --config fleet.yaml --node NAME --out FILE",
		Short: "Make a credential that one node uses instead of the fleet key",
		Long: `Make a credential that one node uses instead of the fleet key.

A credential is a certificate with the node's name and roles. Anyone who steals it can act only as
that node. Copy it to the node, to the path of secrets.fleet_key. If the fleet file has
nodes.NAME.sites, the node may purge only these sites.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, _, err := config.Load(fleetFile)
			if err != nil {
				return err
			}
			n, err := f.WantNode("--node", node)
			if err != nil {
				return err
			}
			if out == "" {
				return usageError{errors.New("give --out FILE, the path of a new file")}
			}
			key, err := fleet.ReadKey(f.Path(f.Secrets.FleetKey))
			if err != nil {
				return err
			}
			text, err := key.Credential(n.Name, n.Roles, n.Sites)
			if err != nil {
				return fmt.Errorf("credential of %s: %w", n.Name, err)
			}
			w, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			if _, err := w.Write(text); err != nil {
				return err
			}
			return w.Close()
		},
	}
	configFlag(cmd, &fleetFile)
	cmd.Flags().StringVar(&node, "node", "", "`NAME` of the node")
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write")
	return cmd
}
