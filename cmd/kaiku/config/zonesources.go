package config

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// zoneSources reads the texts of zone files to show lines in errors and warnings. It reads the
// files again, because few zones have errors, and large zones should not stay in memory.
type zoneSources struct {
	fleet *Fleet
	file  string // the file that was read last
	lines []string
}

// path returns the path of a file of a zone: the zone's own, or one that it includes.
func (s *zoneSources) path(z *geodns.Zone, name string) string {
	for i := range s.fleet.GeoDNS.Zones {
		own := &s.fleet.GeoDNS.Zones[i]
		if LowerHosts([]string{own.Name})[0] == strings.TrimSuffix(z.Name(), ".") {
			if file := s.fleet.LocalFile(own.File); name != file {
				return filepath.Join(filepath.Dir(file), name)
			}
		}
	}
	return name
}

// maxScan is how many lines place searches, beginning at the first record of a set.
const maxScan = 1000

// place returns a finding as an error with line and column.
func (s *zoneSources) place(found finding) *fileError {
	name, at := found.zone.At(found.line)
	file := s.path(found.zone, name)
	if file != s.file {
		text, err := os.ReadFile(file)
		if err != nil {
			text = nil // it was there a moment ago
		}
		s.file, s.lines = file, strings.Split(string(text), "\n")
	}
	for i := at - 1; i < min(len(s.lines), at-1+maxScan); i++ {
		if col := columnOf(s.lines[i], found); col > 0 {
			return &fileError{file, i + 1, col, found.msg, strings.TrimRight(s.lines[i], "\r")}
		}
	}
	line := ""
	if at <= len(s.lines) {
		line = strings.TrimRight(s.lines[at-1], "\r")
	}
	return &fileError{file, at, 1, found.msg, line}
}

// columnOf returns the column, counted from 1, of the word in a line that a finding is about, or 0.
func columnOf(line string, found finding) int {
	seen := found.after == ""
	for at := 0; at < len(line); {
		if strings.ContainsRune(" \t\r()", rune(line[at])) {
			at++
			continue
		}
		if line[at] == ';' {
			break
		}
		end := at + len(line[at:])
		if n := strings.IndexAny(line[at:], " \t\r();"); n >= 0 {
			end = at + n
		}
		word := line[at:end]
		if seen && found.is(word) {
			return at + 1
		}
		seen = seen || strings.EqualFold(word, found.after)
		at = end
	}
	return 0
}
