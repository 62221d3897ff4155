package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/geodns"
	"github.com/kaiku-cdn/kaiku/geodns/dnssec"
)

// dnssecCommand makes `kaiku dnssec` with its commands.
func dnssecCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dnssec",
		Short: "Sign zones: keys, DS records, key rollovers",
		Long: `Manage DNSSEC. The name servers sign each zone of the fleet file that has the setting dnssec. These
commands make its key, print the DS record for the registrar, replace a key, and take a zone out of
DNSSEC. docs/dns.md describes the whole process.`,
	}
	cmd.AddCommand(dnssecKeygen(), dnssecDS(), dnssecStatus(), dnssecRollover(), dnssecLeave())
	return cmd
}

func dnssecKeygen() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Write a new key for a zone to a file",
		Args:  usage(wants("FILE")),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := dnssec.Generate()
			if err != nil {
				return err
			}
			text, err := dnssec.Keys{key}.Format()
			if err != nil {
				return err
			}
			if err := writeNew(args[0], text); err != nil {
				return fmt.Errorf("write the key: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `%s: a new ECDSA P-256 key with the tag %d. Keep a copy of the file in a safe place.
Next: in fleet.yaml, set dnssec: { key: %[1]s } for the zone, and deploy.
Then: once kaiku dnssec status finds no fault, give the registrar the DS record that kaiku dnssec ds prints.
`, args[0], key.Tag())
			return err
		},
	}
}

// writeNew writes a secret to a new file. It is an error if the file exists.
func writeNew(name string, text []byte) error {
	w, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// signedZone is a zone of the fleet file that has keys.
type signedZone struct {
	fleet *config.Fleet
	zone  *config.Zone
	file  string // of the keys, on the operator's machine
	keys  dnssec.Keys
	read  *geodns.Zone // the parsed zone; nil if it was not read
}

// name returns the zone's name without the dot at its end.
func (z *signedZone) name() string { return strings.TrimSuffix(z.zone.Name, ".") }

// signedZones reads the fleet file and the keys of its signed zones. name selects one zone; ""
// means all.
func signedZones(fleetFile, name string) ([]*signedZone, error) {
	f, zones, err := config.Load(fleetFile)
	if err != nil {
		return nil, err
	}
	var out []*signedZone
	var known []string
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for i := range f.GeoDNS.Zones {
		z := &f.GeoDNS.Zones[i]
		is := strings.ToLower(strings.TrimSuffix(z.Name, "."))
		known = append(known, is)
		if name != "" && name != is {
			continue
		}
		if z.DNSSEC == nil {
			if name != "" {
				return nil, fmt.Errorf("zone %s is not signed, because %s has no dnssec setting for it: make a key with kaiku dnssec keygen", is, fleetFile)
			}
			continue
		}
		made := &signedZone{fleet: f, zone: z, file: f.LocalFile(z.DNSSEC.Key)}
		if made.keys, err = config.ReadDNSSECKeys(made.file); err != nil {
			return nil, fmt.Errorf("the DNSSEC keys of %s: %w", is, err)
		}
		for _, read := range zones {
			if strings.TrimSuffix(read.Name(), ".") == is {
				made.read = read
			}
		}
		out = append(out, made)
	}
	switch {
	case len(out) == 0 && name != "":
		return nil, fmt.Errorf("there is no zone %s in %s: the zones are %s", name, fleetFile,
			strings.Join(known, ", "))
	case len(out) == 0:
		return nil, fmt.Errorf("no zone of %s is signed: see kaiku dnssec keygen", fleetFile)
	}
	return out, nil
}

// save writes the keys to their file atomically.
func (z *signedZone) save() error {
	if err := z.keys.Check(); err != nil {
		return err
	}
	text, err := z.keys.Format()
	if err == nil {
		err = replaceFile(z.file, text)
	}
	if err != nil {
		return fmt.Errorf("write the DNSSEC keys of %s: %w", z.name(), err)
	}
	return nil
}

func dnssecDS() *cobra.Command {
	var fleetFile string
	cmd := &cobra.Command{
		Use:   "ds ZONE",
		Short: "Print the DS record for the registrar",
		Args:  usage(wants("ZONE")),
		RunE: func(cmd *cobra.Command, args []string) error {
			zones, err := signedZones(fleetFile, args[0])
			if err != nil {
				return err
			}
			return zones[0].printDS(cmd.OutOrStdout())
		},
	}
	fleetFlag(cmd, &fleetFile)
	return cmd
}

// printDS prints the DS record that the registrar must have.
func (z *signedZone) printDS(w io.Writer) error {
	wanted := z.keys.Wanted()
	if wanted == nil {
		_, err := fmt.Fprintf(w, "%s is leaving DNSSEC: the registrar must have no DS record for it\n", z.name())
		return err
	}
	record, err := geodns.DSRecord(z.name(), wanted)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, record)
	return err
}

func fleetFlag(cmd *cobra.Command, fleetFile *string) {
	cmd.Flags().StringVar(fleetFile, "config", "fleet.yaml", "`FILE` that describes the fleet")
}
