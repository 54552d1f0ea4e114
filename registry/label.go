package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ruleLabels returns the rule that one of the labels breaks, or "".
func ruleLabels(labels map[string]string) string {
	if len(labels) > maxLabels {
		return fmt.Sprintf("must have at most %d entries", maxLabels)
	}
	for key, value := range labels {
		if !validLabel(key) || value != "" && !validLabel(value) {
			return fmt.Sprintf("must have keys and values of letters, digits and ._-, the first and the last a letter or digit, of at most %d bytes", maxLabel)
		}
	}
	return ""
}

// validLabel reports whether s may be a label's key, or its value where that is not empty.
func validLabel(s string) bool {
	return s != "" && len(s) <= maxLabel && isAlnum(s[0]) && isAlnum(s[len(s)-1]) && only(s, "._-")
}

// FormatLabels returns the labels in the form rack=3,role=training, sorted.
func FormatLabels(labels map[string]string) string {
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		texts = append(texts, key+"="+labels[key])
	}
	return strings.Join(texts, ",")
}
