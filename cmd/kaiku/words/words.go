// Package words has parts of messages to operators: suggestions for unknown words, and
// counted nouns.
package words

import (
	"fmt"
	"strings"
)

// Suggest returns the end of an error about an unknown word: a question with the nearest known word
// or, if none is near, a list of the known words.
func Suggest(word string, known []string) string {
	if near := Nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	switch n := len(known); {
	case n == 0:
		return "there are none"
	case n == 1:
		return "want " + known[0]
	case n > maxSuggested:
		return "want one of " + strings.Join(known[:maxSuggested], ", ") + " …"
	default:
		return "want " + strings.Join(known[:n-1], ", ") + " or " + known[n-1]
	}
}

// maxSuggested is the largest number of words that a suggestion lists.
const maxSuggested = 24

// Nearest returns the known word that was probably meant, or "". It ignores case, dashes,
// underscores and spaces. A word may have one mistake for every three letters. A mistake is an
// extra, a missing or a wrong letter, or two swapped ones.
func Nearest(word string, known []string) string {
	w := PlainWord(word)
	if len(w) > 64 {
		return ""
	}
	best, least := "", max(1, len(w)/3)+1
	for _, k := range known {
		if d := mistakes(w, PlainWord(k)); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// PlainWord returns a word without what people write in different ways: it is in lower case, and
// has no dashes, underscores and spaces.
func PlainWord(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
}

// mistakes returns the optimal string alignment distance between two words.
func mistakes(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[j+1]+1, row[j]+1, above[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{above, row, before}
	}
	return rows[1][len(b)]
}

// Count returns a number with its noun: 1 node, 2 nodes.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
