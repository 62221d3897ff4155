// Command caddy is Caddy as its authors build it: the standard modules and nothing else. It is a
// module of its own, so that nothing of it gets into Kaiku's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
