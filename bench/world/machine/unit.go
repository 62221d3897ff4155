//go:build linux

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unit has the directives of a unit file, by "Section.Key".
type unit map[string][]string

// held has the directives that the stand-in implements. shown has those that it accepts and
// ignores: descriptions, sandbox, cgroups, and the order at boot.
var (
	held = strings.Fields(`Unit.Requires Service.Type Service.ExecStart Service.ExecReload Service.Restart Service.RestartSec Service.TimeoutStartSec
		Service.TimeoutStopSec Service.User Service.Group Service.StateDirectory Service.StateDirectoryMode Service.LogsDirectory
		Service.LogsDirectoryMode Service.WorkingDirectory Service.LimitNOFILE Service.Environment Service.AmbientCapabilities Service.UMask
		Service.NoNewPrivileges Socket.ListenStream Socket.FileDescriptorName Socket.FreeBind Install.WantedBy`)
	shown = strings.Fields(`Unit.Description Unit.Documentation Unit.Wants Unit.After Unit.StartLimitIntervalSec Service.NotifyAccess Service.MemoryMax
		Service.ReadWritePaths Service.CapabilityBoundingSet Service.ProtectSystem Service.ProtectHome Service.PrivateTmp Service.PrivateDevices
		Service.ProtectClock Service.ProtectControlGroups Service.ProtectHostname Service.ProtectKernelLogs Service.ProtectKernelModules
		Service.ProtectKernelTunables Service.ProtectProc Service.LockPersonality Service.MemoryDenyWriteExecute Service.RemoveIPC
		Service.RestrictAddressFamilies Service.RestrictNamespaces Service.RestrictRealtime Service.RestrictSUIDSGID Service.SystemCallArchitectures
		Service.SystemCallFilter Service.SystemCallErrorNumber Socket.Backlog Socket.TriggerLimitIntervalSec`)
)

const unitDir = "/etc/systemd/system"

// readUnit reads a unit file.
func readUnit(name string) (unit, error) {
	b, err := os.ReadFile(filepath.Join(unitDir, name))
	if err != nil {
		return nil, fmt.Errorf("unit %s not found: %w", name, err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch key, value, found := strings.Cut(line, "="); {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case !found || strings.HasSuffix(line, `\`):
			return nil, fmt.Errorf("%s: %q is not understood here", name, line)
		default:
			key = section + "." + key
			if !slices.Contains(held, key) && !slices.Contains(shown, key) {
				return nil, fmt.Errorf("%s: %s is not known here", name, key)
			}
			u[key] = append(u[key], value)
		}
	}
	return u, nil
}

// get returns the last value of a directive, which is the one in force.
func (u unit) get(key string) string {
	if v := u[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// seconds returns a directive's value as a duration, or none if the directive is missing.
func (u unit) seconds(key string, none time.Duration) (time.Duration, error) {
	v := u.get(key)
	if v == "" {
		return none, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, fmt.Errorf("%s=%s: only whole seconds are understood here", key, v)
	}
	return time.Duration(n) * time.Second, nil
}

// wanted returns the links that enable a unit.
func (u unit) wanted(name string) []string {
	var out []string
	for _, target := range u["Install.WantedBy"] {
		out = append(out, filepath.Join(unitDir, target+".wants", name))
	}
	return out
}

func (m *manager) enable(name string) error {
	u, err := m.load(name)
	if err != nil {
		return err
	}
	for _, link := range u.wanted(name) {
		_ = os.Remove(link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755),
			os.Symlink(filepath.Join(unitDir, name), link)); err != nil {
			return err
		}
	}
	return nil
}

func (m *manager) disable(name string) error {
	links, err := filepath.Glob(filepath.Join(unitDir, "*.wants", name))
	for _, link := range links {
		err = errors.Join(err, os.Remove(link))
	}
	return err
}

func enabled(name string) bool {
	links, _ := filepath.Glob(filepath.Join(unitDir, "*.wants", name)) // the pattern is valid
	return len(links) > 0
}
