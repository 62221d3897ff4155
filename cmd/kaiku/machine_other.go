//go:build !linux

package main

func machineMemory() Size { return 0 }

func fileSystem(string) Size { return 0 }
