package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
)

// completion completes a word from the fleet file that the command line names, or else from the one
// that is found without a flag.
type completion = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// fleetOf returns the fleet file of a command line that is being typed, or nil if it can't be read.
func fleetOf(cmd *cobra.Command, etc string) *config.Fleet {
	fleetFile := ""
	if f := cmd.Flags().Lookup("config"); f != nil && f.Changed {
		fleetFile = f.Value.String()
	} else {
		fleetFile = fleetHere(etc)
	}
	f, err := config.Read(fleetFile)
	if err != nil {
		return nil
	}
	return f
}

// completeNodes completes the name of a node that has a role, or of any node if role is "". In a
// list with commas, it completes the last name.
func completeNodes(etc, role string) completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		f := fleetOf(cmd, etc)
		if f == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		before := word[:strings.LastIndexByte(word, ',')+1]
		var out []string
		for i := range f.Nodes {
			n := &f.Nodes[i]
			if (role == "" || n.Has(role)) && strings.HasPrefix(before+n.Name, word) {
				out = append(out, before+n.Name+"\t"+strings.Join(n.Roles, ", "))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNode is completeNodes for a command that takes one node as its only argument.
func completeNode(etc, role string) completion {
	complete := completeNodes(etc, role)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, word)
	}
}

// completeHosts completes the host of a site, between the texts before and after. If after is not
// "", the shell adds no space, so that the user can go on typing.
func completeHosts(etc, before, after string) completion {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		f := fleetOf(cmd, etc)
		if f == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, s := range f.Sites {
			for _, h := range s.Hosts {
				if text := before + h + after; strings.HasPrefix(text, word) &&
					(after == "" || !strings.HasPrefix(h, "*.")) {
					out = append(out, text+"\tsite "+s.Name)
				}
			}
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		if after != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return out, directive
	}
}

// completeURLs completes the URL of a site up to the path.
func completeURLs(etc string) completion { return completeHosts(etc, "https://", "/") }

// completeAll registers completions for cmd and all commands below it. Commands that complete their
// own arguments keep that.
func completeAll(cmd *cobra.Command, etc string) {
	for _, c := range cmd.Commands() {
		completeAll(c, etc)
	}
	role := map[string]string{"http": config.RoleEdge, "warm": config.RoleEdge, "edge": config.RoleEdge,
		"geodns": config.RoleGeoDNS, "control": config.RoleControl}[cmd.Name()]
	for flag, complete := range map[string]completion{
		"node": completeNodes(etc, role), "only": completeNodes(etc, ""),
		"host": completeHosts(etc, "", ""), "prefix": completeURLs(etc), "sitemap": completeURLs(etc),
	} {
		if f := cmd.Flags().Lookup(flag); f != nil && (cmd.Name() != "init") {
			_ = cmd.RegisterFlagCompletionFunc(flag, complete) // fails for an unknown flag, or twice
		}
	}
	if cmd.Flags().Lookup("config") != nil {
		_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	}
	for _, dir := range []string{"dir", "root", "data"} {
		if cmd.Flags().Lookup(dir) != nil {
			_ = cmd.MarkFlagDirname(dir)
		}
	}
	for _, free := range []string{"tag", "client", "admin", "listen", "origin", "domain", "email", "disk", "memory",
		"rate", "limit", "batch", "settle", "health-limit", "health-every"} {
		if cmd.Flags().Lookup(free) != nil {
			_ = cmd.RegisterFlagCompletionFunc(free, cobra.NoFileCompletions)
		}
	}
	if cmd.ValidArgsFunction == nil && cmd.Args != nil && cmd.Args(cmd, []string{"x"}) != nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions // it takes no arguments
	}
}

// bashWords replaces the one function of the package bash-completion that cobra's script needs, for
// machines without that package.
const bashWords = `
# Without the package bash-completion, words are put together again where : and = have parted them.
__kaiku_init_completion()
{
    COMPREPLY=()
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local i last=-1 word line=$COMP_LINE
    words=() cword=0
    for i in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ $line != [[:space:]]* && ($word == [:=]* || ${COMP_WORDS[i-1]} == *[:=]) ]]; then
            words[last]+=$word
        else
            words[++last]=$word
        fi
        line=${line#*"$word"}
        ((i != COMP_CWORD)) || cword=$last
    done
    cur=${words[cword]} prev=${words[cword > 0 ? cword - 1 : 0]}
}
`

// addCompletion adds the command completion.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil {
		return
	}
	before, after, _ := strings.Cut(bash.Long, "This script depends on")
	_, after, _ = strings.Cut(after, "\n\n")
	bash.Long = before + after
	script := bash.RunE
	bash.RunE = func(cmd *cobra.Command, args []string) error {
		if err := script(cmd, args); err != nil {
			return err
		}
		_, err := io.WriteString(cmd.OutOrStdout(), bashWords)
		return err
	}
}
