package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// nearest returns the candidates that a mistyped word may mean, the nearest first: at most
// three, and none that is far away.
func nearest(word string, candidates []string) []string {
	type candidate struct {
		text     string
		distance int
	}
	word = strings.ToLower(word)
	var near []candidate
	for _, c := range candidates {
		if word == "" || c == "" {
			continue
		}
		lower := strings.ToLower(c)
		d := editDistance(word, lower)
		if strings.HasPrefix(lower, word) {
			d = 1 // somebody stopped early
		}
		if d <= max(1, len(word)/3) {
			near = append(near, candidate{c, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	var texts []string
	for _, c := range near[:min(len(near), 3)] {
		texts = append(texts, c.text)
	}
	return texts
}

// editDistance counts the letters to insert, delete, replace, or swap with the next one, to
// make one word of the other (optimal string alignment).
func editDistance(a, b string) int {
	previous, before := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(previous[j]+cost, previous[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}

// didYouMean is a hint that names the candidates nearest to a word, or "" without any.
func didYouMean(word string, candidates []string) string {
	near := nearest(word, candidates)
	if len(near) == 0 {
		return ""
	}
	for i, text := range near {
		near[i] = wire.Quote(text)
	}
	return "Did you mean " + strings.Join(near, ", or ") + "?"
}

// withSuggestion adds what a mistyped word may mean, and the next step, to an error.
func withSuggestion(err error, word string, candidates []string, next string) error {
	if meant := didYouMean(word, candidates); meant != "" {
		next = meant + " " + next
	}
	return withHint(err, "%s", next)
}
