package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxLine    = 120 // columns of a line, with tabs of four
	maxComment = 100 // columns of a line that is a comment
	maxString  = 60  // columns of a string that may make its line longer
	maxFile    = 450 // lines
	maxEdge    = 400 // lines of a file of edge and its rooms that is no test
	maxFunc    = 80  // lines
)

// Files, functions and lines fit a reader.
func TestHouse(t *testing.T) {
	over := func(what, where string, n, limit int) {
		t.Errorf("%s: %s has %d lines, of %d at most: cut it by idea", where, what, n, limit)
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(path), "../../")
		text := readFile(t, path)
		lines := strings.Split(text, "\n")
		for i, l := range lines {
			comment := strings.TrimSpace(l)
			if !strings.HasPrefix(comment, "// ") || strings.HasPrefix(comment, "//  ") ||
				strings.Contains(comment, "://") {
				continue // of the others, those are laid out as they are to be read
			}
			if n := columns(l); n > maxComment {
				t.Errorf("%s:%d: the comment has %d columns, of %d at most", name, i+1, n, maxComment)
			}
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		free := linesOfStrings(set, file)
		for i, l := range lines {
			if n := columns(l); n > maxLine && !free[i+1] && !strings.HasPrefix(strings.TrimSpace(l), "//") {
				t.Errorf("%s:%d: the line has %d columns, of %d at most", name, i+1, n, maxLine)
			}
		}
		limit := maxFile
		if strings.HasPrefix(name, "edge/") && !strings.HasSuffix(name, "_test.go") {
			limit = maxEdge
		}
		if n := len(lines) - 1; n > limit {
			over("the file", name, n, limit)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line - 1; n > maxFunc {
				over("the function", fmt.Sprintf("%s: %s", name, f.Name.Name), n, maxFunc)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// columns returns the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
}

// linesOfStrings returns the lines that hold a long string, or a part of a string of several lines.
func linesOfStrings(set *token.FileSet, file *ast.File) map[int]bool {
	found := map[int]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		first, last := set.Position(lit.Pos()).Line, set.Position(lit.End()).Line
		for line := first; line <= last; line++ {
			found[line] = found[line] || last > first || utf8.RuneCountInString(lit.Value) > maxString
		}
		return true
	})
	return found
}
