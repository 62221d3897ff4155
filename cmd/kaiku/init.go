package main

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// firstFiles has the answers from which init writes the first files of a fleet.
type firstFiles struct {
	Domain, Email string
	Origin        config.OriginURL
	Nodes         []firstNode

	// For an origin below the domain, the zone needs the origin's label and these addresses.
	OriginLabel     string
	OriginAddresses []netip.Addr
	// Unhealthy is the origin's status for the health check, if it would count as down; 0
	// otherwise.
	Unhealthy int
	// Unreached reports whether the origin did not answer init's requests.
	Unreached bool
	Signed    bool // the zone gets a DNSSEC key
}

func initCommand() *cobra.Command {
	var f firstFiles
	var domain, originURL, email, dir string
	var nodes []string
	var noCheck bool
	cmd := &cobra.Command{
		Use:   "init --domain example.com --origin https://origin.example.net --node hel1=203.0.113.10@Helsinki …",
		Short: "Write the first fleet.yaml, its zone, fleet key and admin token; ask for missing values",
		Long: `Write the first fleet.yaml, its zone, fleet key and admin token, into a folder that has none of
them yet. Init asks for values that no flag gives.

All nodes get the role edge. The first two also get geodns. The first three also get control, or
only the first if there are fewer than three.

A node is NAME=IP[,IP]@PLACE: its IPv4 or IPv6 address, or both, and its place, as
LATITUDE,LONGITUDE or the name of a large city. Without @PLACE, init takes the centre of population
of the country that the address is in.

Init checks the files as kaiku check does. Then it requests the page / from the origin, and one file
of that page, as an edge would. It prints until when the certificate is valid, where redirects lead,
and whether and for how long the responses will be cached.`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if file := filepath.Join(dir, "fleet.yaml"); exists(file) {
				return fmt.Errorf("init: %[1]s already exists: edit it and run kaiku check %[1]s, or give another --dir", file)
			}
			q := &questions{lines: bufio.NewScanner(cmd.InOrStdin()), out: out}
			if err := f.gather(q, domain, originURL, email, nodes); err != nil {
				return err
			}
			f.assignRoles()
			for _, n := range f.Nodes {
				if n.Guessed {
					fmt.Fprintf(out, "%s: its place is %s (%v,%v); if that is wrong, correct its location in fleet.yaml\n", n.Name, n.Where, n.Place[0], n.Place[1])
				}
			}
			if !noCheck {
				f.lookAtOrigin(cmd.Context(), out)
			}
			return f.write(cmd.Context(), dir, out)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&domain, "domain", "", "`DOMAIN` of the fleet; the site is www.DOMAIN and DOMAIN itself")
	fl.StringVar(&originURL, "origin", "", "`URL` of your server, which has the site")
	fl.StringVar(&email, "email", "", "email `ADDRESS` for an account at Let's Encrypt; without it, the fleet has no TLS")
	fl.StringArrayVar(&nodes, "node", nil,
		"a machine: `NAME=IP[,IP]@PLACE`, such as hel1=203.0.113.10,2001:db8::10@60.17,24.94 (may be repeated)")
	fl.StringVar(&dir, "dir", ".", "`FOLDER` to write to")
	fl.BoolVar(&f.Signed, "dnssec", false, "make a DNSSEC key with which the name servers sign the zone; see docs/dns.md")
	fl.BoolVar(&noCheck, "no-origin-check", false, "don't send requests to the origin")
	return cmd
}

// questions asks the operator.
type questions struct {
	lines *bufio.Scanner
	out   io.Writer
}

// ask repeats a question until take accepts the answer. It returns an error at the end of input.
func (q *questions) ask(question string, take func(answer string) error) error {
	for {
		fmt.Fprint(q.out, question+": ")
		if !q.lines.Scan() {
			fmt.Fprintln(q.out)
			return usageError{fmt.Errorf("no answer to the question %q: give the value by a flag, see kaiku init --help", question)}
		}
		err := take(strings.TrimSpace(q.lines.Text()))
		if err == nil {
			return nil
		}
		fmt.Fprintf(q.out, "  %v\n", err)
	}
}

// gather takes the values of flags, and asks for those that are missing.
func (f *firstFiles) gather(q *questions, domain, originURL, email string, nodes []string) error {
	given := func(value, question string, take func(string) error) error {
		if value == "" {
			return q.ask(question, take)
		}
		if err := take(value); err != nil {
			return usageError{err}
		}
		return nil
	}
	if err := given(domain, "domain, such as example.com", f.setDomain); err != nil {
		return err
	}
	if err := given(originURL, "origin, such as https://origin.example.net", f.setOrigin); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := f.addNode(n); err != nil {
			return usageError{err}
		}
	}
	for more := len(nodes) == 0; more; {
		err := q.ask("a machine as NAME=IP[,IP]@PLACE, such as hel1=203.0.113.10@60.17,24.94 or @Helsinki (an empty line ends)", func(line string) error {
			if more = line != "" || len(f.Nodes) == 0; line == "" && more {
				return fmt.Errorf("a fleet has at least one machine")
			} else if line == "" {
				return nil
			}
			return f.addNode(line)
		})
		if err != nil {
			return err
		}
	}
	if email != "" {
		if err := f.setEmail(email); err != nil {
			return usageError{err}
		}
	} else if len(nodes) == 0 { // the end of input counts as an empty answer
		_ = q.ask("e-mail address for certificates from Let's Encrypt (an empty line: no TLS)", f.setEmail)
	}
	return nil
}

func (f *firstFiles) setDomain(text string) error {
	domain := strings.TrimSuffix(strings.ToLower(text), ".")
	if rest, ok := strings.CutPrefix(domain, "www."); ok && strings.Contains(rest, ".") {
		return fmt.Errorf("%q is a host: want the domain, such as %s; www is added to it", text, rest)
	}
	if _, err := netip.ParseAddr(domain); err == nil || !config.IsHost(domain) || !strings.Contains(domain, ".") {
		return fmt.Errorf("%q is not a domain: want a name such as example.com", text)
	}
	f.Domain = domain
	return nil
}

func (f *firstFiles) setOrigin(text string) error {
	if err := f.Origin.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	host := strings.ToLower(f.Origin.Hostname())
	if slices.Contains(f.hosts(), host) {
		return fmt.Errorf("origin: the name %s will lead to the edges, so they would fetch from themselves: want another name or an address of your server, such as origin.%s", host, f.Domain)
	}
	return nil
}

// hosts returns the hosts of the site.
func (f *firstFiles) hosts() []string { return []string{f.Domain, "www." + f.Domain} }

var emailRE = regexp.MustCompile(`^[^@\s"\\]+@[^@\s"\\]+\.[^@\s"\\]+$`)

func (f *firstFiles) setEmail(text string) error {
	if text != "" && !emailRE.MatchString(text) {
		return fmt.Errorf("%q is not an e-mail address", text)
	}
	f.Email = text
	return nil
}

// assignRoles makes all nodes edges and the first two name servers. Of three or more nodes, the
// first three are control nodes; of two, the first is. A single node needs no control plane.
func (f *firstFiles) assignRoles() {
	controls := 1
	if len(f.Nodes) >= 3 {
		controls = 3
	}
	for i := range f.Nodes {
		roles := []string{config.RoleEdge}
		if i < 2 {
			roles = append(roles, config.RoleGeoDNS)
		}
		if i < controls && len(f.Nodes) > 1 {
			roles = append(roles, config.RoleControl)
		}
		f.Nodes[i].Roles = strings.Join(roles, ", ")
	}
}
