package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/deploy"
)

// nodeVariable is the environment variable with the name of the node, for when --node is not given.
const nodeVariable = "KAIKU_NODE"

// nodeFlag adds the flag --node.
func nodeFlag(cmd *cobra.Command, node *string) {
	cmd.Flags().StringVar(node, "node", os.Getenv(nodeVariable),
		"this node's `NAME` (default: the environment variable "+nodeVariable+")")
	cmd.Flags().Lookup("node").DefValue = "" // for help and man pages, which must not depend on the environment
}

// packaged is the node of a distribution package, which learns its name from a file.
func packaged() deploy.Node {
	return deploy.Node{Name: "${" + nodeVariable + "}",
		Service: deploy.Service{Program: "/usr/bin/kaiku", Environment: "/etc/kaiku/node"}}
}

func unitsCommand() *cobra.Command {
	var config, node, root string
	var forPackage bool
	cmd := &cobra.Command{
		Use:   "units --config fleet.yaml --node NAME [--root DIR]",
		Short: "Print or write the systemd units and kernel settings that deploy installs on a node",
		Args:  usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := unitsOf(config, node, forPackage)
			if err != nil {
				return err
			}
			for _, f := range files {
				if root == "" {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "# %s\n%s\n", f.Path, f.Data)
				} else {
					err = writeBelow(root, f)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	configFlag(cmd, &config)
	nodeFlag(cmd, &node)
	cmd.Flags().StringVar(&root, "root", "",
		"write the files below this `FOLDER` instead of printing them; / installs them on this machine")
	cmd.Flags().BoolVar(&forPackage, "package", false, "the files of a package, for any node")
	_ = cmd.Flags().MarkHidden("package")
	return cmd
}

func writeBelow(root string, f deploy.File) error {
	path := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, f.Data, 0o644)
}

// unitsOf returns the systemd units of a node.
func unitsOf(fleetFile, node string, forPackage bool) ([]deploy.File, error) {
	if forPackage {
		// The service binds its own listeners. The socket unit is for edges, and optional: without
		// it, the kernel refuses connections during a restart.
		n := packaged()
		files, err := n.Units()
		n.Listen = []string{":80", ":443"}
		withSocket, err2 := n.Units()
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		return append(files, withSocket[len(files):]...), nil
	}
	f, _, err := config.Load(fleetFile)
	if err != nil {
		return nil, err
	}
	n, err := f.WantNode("--node", node)
	if err != nil {
		return nil, err
	}
	d := deploy.Node{Name: n.Name, Service: serviceOf(f, n)}
	files, err := d.Units()
	return append(files, nameFile(n)), err
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
