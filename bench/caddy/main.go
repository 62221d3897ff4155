// Command caddy is Caddy as its authors build it, with only the standard modules. It is a module of
// its own, so that Caddy's dependencies stay out of Kaiku's module.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
