package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/edge/cache"
	"github.com/kaiku-cdn/kaiku/origin"
)

func explainCommand(etc string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Explain why an edge or a name server answers as it does",
		Args:  usage(noArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(explainHTTPCommand(etc), explainDNSCommand(etc))
	return cmd
}

func explainHTTPCommand(etc string) *cobra.Command {
	api := adminAPI{etc: etc, edges: true}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "http URL",
		Short: "Explain whether an edge has a URL in its cache, for how long, and why",
		Args:  usage(wants("URL")),

		ValidArgsFunction: completeURLs(etc),
		RunE: func(cmd *cobra.Command, args []string) error {
			var e cache.Explanation
			node, err := api.call(cmd, "GET", "/v1/explain?url="+url.QueryEscape(args[0]), nil, &e)
			if err != nil {
				return fmt.Errorf("explain: %w", err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
			}
			if node.name != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "edge %s:\n", node.name)
			}
			return printExplanation(cmd.OutOrStdout(), e)
		},
	}
	api.flags(cmd)
	api.nodeFlag(cmd, "`EDGE` to query (default the first that answers)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printExplanation(out io.Writer, e cache.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{name}, a...)...) }
	if len(e.Rules) > 0 {
		row("rules", "%s", strings.Join(e.Rules, ", "))
	}
	for _, l := range e.Limits {
		row("limit", "%s", l)
	}
	if len(e.Objects) == 0 {
		row("key", "%s", e.Key)
		row("not stored", "%s", e.WhyNot)
	}
	for i, o := range e.Objects {
		if i > 0 {
			fmt.Fprintln(w)
		}
		row("key", "%s", o.Key)
		for name, value := range o.Variant {
			row("variant", "%s: %s", name, value)
		}
		row("status", "%d", o.Status)
		row("size", "%d bytes", o.Size)
		if o.Have != o.Size {
			row("stored part", "%d bytes", o.Have)
		}
		row("stored", "%s", o.Stored.UTC().Format(time.RFC3339))
		if o.Source == "" {
			row("freshness", "none: the edge revalidates it on each request")
		} else {
			row("freshness", "%d s by %s", o.Lifetime, o.Source)
		}
		if o.Hint != "" {
			row("hint", "%s", o.Hint)
		}
		row("age", "%d s", o.Age)
		state := "fresh"
		if o.TTL <= 0 {
			state = "stale"
		}
		if o.Purged {
			state += ", by a soft purge"
		}
		row("ttl", "%d s (%s)", o.TTL, state)
		if o.Validator != "" {
			row("validator", "%s", o.Validator)
		}
		if len(o.Tags) > 0 {
			row("tags", "%s", strings.Join(o.Tags, " "))
		}
		for _, c := range o.Codings {
			if c.Size > 0 {
				row(c.Coding, "%d bytes, %s", c.Size, c.State)
			} else {
				row(c.Coding, "%s", c.State)
			}
		}
		if o.NotCoded != "" {
			row("not coded", "%s", o.NotCoded)
		}
		place := "disk"
		if o.Memory {
			place = "disk and memory"
		}
		row("segment", "%d, on %s", o.Segment, place)
	}
	if len(e.Objects) > 0 {
		fmt.Fprintln(w)
	}
	printOrigin(row, e)
	return w.Flush()
}

// printOrigin prints the state of an explained URL's origin servers. A hint follows an error if the
// error is why this URL failed, or why a server is not used now.
func printOrigin(row func(name, format string, a ...any), e cache.Explanation) {
	hints := map[string]bool{} // already printed
	hint := func(f *origin.Failure) {
		if f.Hint != "" && !hints[f.Hint] {
			hints[f.Hint] = true
			row("hint", "%s", f.Hint)
		}
	}
	text := func(f *origin.Failure) string {
		return fmt.Sprintf("failed %s: %s", f.At.UTC().Format(time.RFC3339), f.Error)
	}
	if e.Origin != "" {
		row("origin", "%s, by a rule", e.Origin)
	}
	if e.Bucket != "" {
		row("bucket", "%s", e.Bucket)
	}
	if e.LastFailure != nil {
		row("last fetch", "%s", text(e.LastFailure))
		hint(e.LastFailure)
	}
	for _, s := range e.Servers {
		switch {
		case s.LastFailure == nil:
			row("server", "%s is %s", s.Server, s.State)
		case e.LastFailure == nil && s.Up():
			row("server", "%s is %s; earlier, another fetch %s", s.Server, s.State, text(s.LastFailure))
		default:
			row("server", "%s is %s; last %s", s.Server, s.State, text(s.LastFailure))
			hint(s.LastFailure)
		}
	}
}
