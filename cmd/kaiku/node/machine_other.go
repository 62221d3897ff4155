//go:build !linux

package node

import "github.com/kaiku-cdn/kaiku/cmd/kaiku/config"

func machineMemory() config.Size { return 0 }

func fileSystem(string) config.Size { return 0 }
