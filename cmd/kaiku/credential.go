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

Put it on the node at the path of secrets.fleet_key. It is a certificate with the node's name and
roles. Whoever steals it can act as that node only. With it, the node may purge only the sites that
the fleet file gives it (nodes.NAME.sites; none means all).`,
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
				return usageError{errors.New("want --out, a file that is not there yet")}
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
