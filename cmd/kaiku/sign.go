package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaiku-cdn/kaiku/cmd/kaiku/config"
	"github.com/kaiku-cdn/kaiku/edge/httpcache"
	"github.com/kaiku-cdn/kaiku/edge/rules"
)

// signing has the flags of `kaiku sign`.
type signing struct {
	fleet, key, param, prefix, network string
	expires                            time.Duration
}

func signCommand() *cobra.Command {
	var s signing
	cmd := &cobra.Command{
		Use:   "sign URL",
		Short: "Sign a URL for a rule with signed",
		Long: `Sign a URL for a rule with signed, and print the signed URL. docs/rules.md describes what is signed.

Without --key, the key is the first one of the rule that matches the URL.`,
		Example: `  kaiku sign https://www.example.com/media/a.mp4 --expires 1h
  kaiku sign https://www.example.com/media/7/index.m3u8 --prefix /media/7/ --network 203.0.113.0/24`,
		Args: usage(wants("URL")),
		RunE: func(cmd *cobra.Command, args []string) error {
			signed, err := s.sign(args[0], time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), signed)
			return err
		},
	}
	fl := cmd.Flags()
	fl.DurationVar(&s.expires, "expires", time.Hour, "how long the URL is valid")
	fl.StringVar(&s.prefix, "prefix", "", "sign all URLs below this `PATH`, which ends with /")
	fl.StringVar(&s.network, "network", "", "only clients in this `NETWORK` may use the URL")
	fl.StringVar(&s.key, "key", "", "`FILE` of the key (default: the key of the rule in the fleet file)")
	fl.StringVar(&s.param, "param", "", "`NAME` of the query parameter (default: that of the rule, or token)")
	configFlag(cmd, &s.fleet)
	return cmd
}

// sign returns the signed URL.
func (s *signing) sign(raw string, now time.Time) (string, error) {
	t, err := httpcache.ParseURL(raw)
	if err != nil {
		return "", usageError{err}
	}
	path, err := rules.SignablePath(t.Path)
	if err != nil {
		return "", usageError{err}
	}
	token := rules.Token{Expires: now.Add(s.expires).Unix()}
	if s.expires <= 0 {
		return "", usageError{fmt.Errorf("--expires %v: want more than 0s", s.expires)}
	}
	if s.network != "" {
		if token.Network, err = rules.ParseNetwork(s.network); err != nil {
			return "", usageError{fmt.Errorf("--network: %w", err)}
		}
	}
	if s.prefix != "" {
		if token.Prefix, err = rules.SignablePath(s.prefix); err != nil || !strings.HasPrefix(s.prefix, "/") ||
			!strings.HasSuffix(s.prefix, "/") {
			return "", usageError{fmt.Errorf("--prefix %s: want a path that begins and ends with /", s.prefix)}
		}
		if !strings.HasPrefix(path, token.Prefix) {
			return "", usageError{fmt.Errorf("the path of the URL does not begin with %s", s.prefix)}
		}
	}
	key, param, err := s.find(t)
	if err != nil {
		return "", err
	}
	if _, found := rules.CutParam(t.Query, param); found != nil {
		return "", usageError{fmt.Errorf("the URL has the parameter %s already", param)}
	}
	query := strings.TrimPrefix(t.Query, "?")
	t.Query = "?" + query
	if query != "" {
		t.Query += "&"
	}
	t.Query += param + "=" + token.Sign(key, t.Host, path, query)
	return t.String(), nil
}

// find returns the key and the name of the parameter.
func (s *signing) find(t httpcache.Target) (key []byte, param string, err error) {
	if s.key != "" {
		key, err = config.ReadSigningKey(s.key)
		if err != nil {
			err = fmt.Errorf("read the key: %w", err)
		}
		return key, cmp.Or(s.param, "token"), err
	}
	f, err := config.Read(s.fleet)
	if err != nil {
		return nil, "", err
	}
	param, key, err = f.Signing(&rules.Request{Method: "GET", Secure: t.Secure, Host: t.Host, Path: t.Path,
		Query: t.Query})
	if err != nil {
		return nil, "", fmt.Errorf("find the key: %w; or name its file by --key", err)
	}
	return key, cmp.Or(s.param, param), nil
}
