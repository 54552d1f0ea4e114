package sqlcipher

import "strings"

// QuoteText returns an SQL literal of a text.
func QuoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// QuoteName returns the name of a table or a column as SQL writes it, whatever it contains.
func QuoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
