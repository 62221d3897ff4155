//go:build !linux

package storage

import "errors"

// canPlace is false on systems where this was never tested. All bodies are copied there.
const canPlace = false

func (v *valueFile) sendfile(int, int64, int, bool) (int, error) { return 0, errors.ErrUnsupported }

func (v *valueFile) read([]byte, int64) int { return 0 }

func write(int, []byte) (int, error) { return 0, errors.ErrUnsupported }

func isRefusal(error) bool { return false }

func isDiskError(error) bool { return false }

func (v *valueFile) mem(int64, int) []byte { return nil }

func (v *valueFile) cached(int64, int) bool { return false }

func (v *valueFile) evicted(int64, int) bool { return false }

func unmap([]byte) error { return nil }
