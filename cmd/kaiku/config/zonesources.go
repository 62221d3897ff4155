package config

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/kaiku-cdn/kaiku/geodns"
)

// zoneSources are the texts of zone files, for what is told of their lines. They are read again, as
// few zones have anything to be told, and large ones are not kept.
type zoneSources struct {
	fleet *Fleet
	file  string // that was read last
	lines []string
}

// path is where a file of a zone is, which is the zone's own or one that it includes.
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

// maxScan is how many lines a record may be below the first of its name and type.
const maxScan = 1000

// place finds the line and column of what a finding is about.
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

// columnOf is where in a line the word begins that a finding is about, from 1, or 0.
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
