package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/storage"
)

func whatIfCommand(etc string) *cobra.Command {
	api := adminAPI{etc: etc, edges: true}
	var disk, memory string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "what-if",
		Short: "Show how many requests an edge would hit with a smaller or larger disk or memory",
		Long: `Show how many requests an edge would hit with a quarter, half, two and four times its disk and
memory, and how much it would fetch. With --disk or --memory, show it for that size too.

Each edge simulates its own requests all the time, for a sample of the objects. Requests of the last
hour count most, so the result is best when the edge has served for some hours.`,
		Example: `  kaiku what-if
  kaiku what-if --disk 2x --memory 512MiB --config fleet.yaml --node hel1`,
		Args: usage(noArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for flag, value := range map[string]string{"disk": disk, "memory": memory} {
				if _, err := wantedBudget(value, 1<<30); err != nil {
					return usageError{fmt.Errorf("--%s: %w", flag, err)}
				}
			}
			nodes, err := api.open(cmd)
			if err != nil {
				return fmt.Errorf("what-if: %w", err)
			}
			defer nodes.close()
			results := make([]storage.WhatIf, len(nodes.list))
			nodes.each(cmd.Context(), func(i int, n *adminNode) error {
				return n.call(cmd.Context(), time.Minute, "GET", "/v1/what-if", nil, &results[i])
			})
			byNode := map[string]storage.WhatIf{}
			for i, n := range nodes.list {
				if n.err != nil {
					return fmt.Errorf("what-if: %w", nodes.err(cmd.Context()))
				}
				byNode[n.name] = results[i]
				if asJSON {
					continue
				}
				if n.name != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "edge %s:\n", n.name)
				}
				if err := printWhatIf(cmd.OutOrStdout(), &results[i], disk, memory); err != nil {
					return fmt.Errorf("what-if: %w", err)
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(byNode)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&disk, "disk", "", "`SIZE` of the store, such as 100GiB, or 2x for twice the present one")
	fl.StringVar(&memory, "memory", "", "`SIZE` of the store in RAM, likewise")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	api.flags(cmd)
	api.nodeFlag(cmd, "`EDGE` to query (default all, with --config)")
	return cmd
}

// wantedBudget returns the bytes that a flag means if the present budget is now; 0 for "".
func wantedBudget(flag string, now int64) (int64, error) {
	if flag == "" {
		return 0, nil
	}
	if times, ok := strings.CutSuffix(flag, "x"); ok {
		n, err := strconv.ParseFloat(times, 64)
		if err != nil || !(n >= 0.25 && n <= 4) {
			return 0, fmt.Errorf("%q: want 0.25x to 4x, or a size", flag)
		}
		return int64(n * float64(now)), nil
	}
	var size config.Size
	if err := size.Set(flag); err != nil {
		return 0, fmt.Errorf("%q: want a size such as 100GiB, or a factor such as 2x", flag)
	}
	return int64(size), nil
}

// printWhatIf prints the results of an edge.
func printWhatIf(out io.Writer, r *storage.WhatIf, disk, memory string) error {
	fmt.Fprintf(out, "%.0f requests, of which 1 in %.0f objects is simulated\n", r.Requests, 1/r.Sampled)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, tier := range []struct {
		name, flag string
		list       []storage.WhatIfBudget
	}{{"disk", disk, r.Disk}, {"memory", memory, r.Memory}} {
		if len(tier.list) < 3 {
			continue
		}
		now := tier.list[2].Bytes
		fmt.Fprintf(w, "%s\t\thits\tof bytes\tmissed a day\n", tier.name)
		row := func(b *storage.WhatIfBudget) {
			fmt.Fprintf(w, "%s\t%.3gx\t%.1f %%\t%.1f %%\t%s\n", config.Size(b.Bytes).About(),
				float64(b.Bytes)/float64(now),
				b.Hits*100, b.Saved*100, config.Size(b.Missed).About())
		}
		for i := range tier.list {
			row(&tier.list[i])
		}
		want, err := wantedBudget(tier.flag, now)
		if err != nil {
			return err
		}
		if want == 0 {
			continue
		}
		b, err := between(tier.list, want)
		if err != nil {
			return fmt.Errorf("--%s: %w", tier.name, err)
		}
		row(b)
	}
	return w.Flush()
}

// between interpolates the result for a budget, by the logarithm of its size.
func between(list []storage.WhatIfBudget, want int64) (*storage.WhatIfBudget, error) {
	if last := list[len(list)-1].Bytes; want < list[0].Bytes || want > last {
		return nil, fmt.Errorf("%s is not simulated: want %s to %s", config.Size(want).About(),
			config.Size(list[0].Bytes).About(), config.Size(last).About())
	}
	i := 1
	for list[i].Bytes < want {
		i++
	}
	a, b := list[i-1], list[i]
	at := math.Log(float64(want)/float64(a.Bytes)) / math.Log(float64(b.Bytes)/float64(a.Bytes))
	mix := func(x, y float64) float64 { return x + (y-x)*at }
	return &storage.WhatIfBudget{Bytes: want, Hits: mix(a.Hits, b.Hits), Saved: mix(a.Saved, b.Saved),
		Missed: mix(a.Missed, b.Missed)}, nil
}
