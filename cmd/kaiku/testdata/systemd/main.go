// Command systemd is a machine for the tests that deploy to some.
package main

import "github.com/kaiku-cdn/kaiku/bench/world/machine"

func main() { machine.Run() }
