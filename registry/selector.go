package registry

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Selector picks nodes by name and by condition.
type Selector struct {
	patterns   []string
	conditions []condition
}

// condition is one comparison of --where.
type condition func(n Node, now time.Time) bool

// ParseSelector parses patterns and conditions. A node must match one of the patterns,
// which are names and globs (hive-*, [ab]?). All conditions must hold. They are
// separated by commas:
//
//	status=online       the status, with = or !=
//	backend=cuda        the node has the backend; != for nodes without it
//	label.rack=3        the label's value, with = or !=; * for any value, eu-* and the like
//	                    for some; != also for nodes without the label
//	cuda>=2             the number of the backend's devices, with = != < <= > >=
//	seen<10m            the last contact was less than 10 minutes ago; > for a longer
//	                    time, or never
//
// Conditions on backends and devices do not hold for a node where these are unknown.
// Without patterns every name matches. The error matches ErrInvalid.
func ParseSelector(patterns []string, where string) (Selector, error) {
	s := Selector{patterns: patterns}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return Selector{}, fmt.Errorf("%w: %.80q is neither a name nor a glob", ErrInvalid, p)
		}
	}
	if where == "" {
		return s, nil
	}
	for _, text := range strings.Split(where, ",") {
		c, err := parseCondition(strings.TrimSpace(text))
		if err != nil {
			return Selector{}, err
		}
		s.conditions = append(s.conditions, c)
	}
	return s, nil
}

// operators of conditions. An operator stands before its own prefixes.
var operators = []string{"!=", "<=", ">=", "=", "<", ">"}

func parseCondition(text string) (condition, error) {
	at := strings.IndexAny(text, "!=<>")
	operator := ""
	if at > 0 {
		for _, o := range operators {
			if strings.HasPrefix(text[at:], o) {
				operator = o
				break
			}
		}
	}
	if operator == "" {
		return nil, fmt.Errorf("%w: the condition %.80q is not of the form status=..., backend=..., label.rack=3, cuda>=2 or seen<10m", ErrInvalid, text)
	}
	name, value := strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+len(operator):])
	var holds condition
	var rule string
	key, isLabel := strings.CutPrefix(name, "label.")
	switch {
	case name == "label": // not a backend that is named so
		rule = "names no label, such as label.rack"
	case isLabel:
		holds, rule = labelCondition(key, operator, value)
	case name == "status":
		holds, rule = statusCondition(operator, value)
	case name == "backend":
		holds, rule = backendCondition(operator, value)
	case name == "seen":
		holds, rule = seenCondition(operator, value)
	default:
		holds, rule = devicesCondition(name, operator, value)
	}
	if rule != "" {
		return nil, fmt.Errorf("%w: the condition %.80q %s", ErrInvalid, text, rule)
	}
	return holds, nil
}

func isEquality(operator string) bool { return operator == "=" || operator == "!=" }

func statusCondition(operator, value string) (holds condition, rule string) {
	status := Status(value)
	if !isEquality(operator) || !status.Valid() {
		return nil, "compares by = or != with unknown, online, offline or error"
	}
	return func(n Node, _ time.Time) bool { return (n.Status == status) == (operator == "=") }, ""
}

func backendCondition(operator, backend string) (holds condition, rule string) {
	if !isEquality(operator) || ruleBackend(backend) != "" {
		return nil, "compares by = or != with a backend's name"
	}
	return func(n Node, _ time.Time) bool {
		_, counted := n.Devices[backend]
		has := counted || slices.Contains(n.Backends, backend)
		known := n.Devices != nil || n.Backends != nil
		return known && has == (operator == "=")
	}, ""
}

func labelCondition(key, operator, pattern string) (holds condition, rule string) {
	if _, err := path.Match(pattern, ""); err != nil || !isEquality(operator) || !validLabel(key) || !validLabelPattern(pattern) {
		return nil, "compares a label by = or != with a value or a glob, such as label.rack=3 or label.rack=*"
	}
	return func(n Node, _ time.Time) bool {
		value, has := n.Labels[key]
		if has {
			has, _ = path.Match(pattern, value)
		}
		return has == (operator == "=")
	}, ""
}

// validLabelPattern refuses what cannot match any value, such as a second operator.
func validLabelPattern(s string) bool { return only(s, `._-*?[]^\`) }

func seenCondition(operator, value string) (holds condition, rule string) {
	ago, err := ParseAge(value)
	if err != nil || isEquality(operator) {
		return nil, "compares by < or > with a time such as 90s, 10m, 36h or 7d"
	}
	return func(n Node, now time.Time) bool {
		older := n.LastConnected.IsZero() || now.Sub(n.LastConnected) >= ago
		return older == (operator[0] == '>')
	}, ""
}

func devicesCondition(backend, operator, value string) (holds condition, rule string) {
	count, err := strconv.ParseUint(value, 10, 32)
	if err != nil || ruleBackend(backend) != "" {
		return nil, "compares a backend's devices with a count, such as cuda>=2"
	}
	return func(n Node, _ time.Time) bool {
		devices, known := n.Devices[backend]
		if !known { // a known node without this backend has 0 of its devices
			known = (n.Devices != nil || n.Backends != nil) && !slices.Contains(n.Backends, backend)
		}
		return known && compare(uint64(devices), operator, count)
	}, ""
}

func compare(a uint64, operator string, b uint64) bool {
	switch operator {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// ParseAge parses a duration such as 90s, 10m, 36h, or 7d for days. The error matches
// ErrInvalid.
func ParseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%w: %.80q is not a time such as 90s, 10m, 36h or 7d", ErrInvalid, text)
}

// Names returns the names of the selector, each once. ok reports that the selector has
// nothing but names: then the nodes can be read without reading all nodes.
func (s Selector) Names() (names []string, ok bool) {
	for _, p := range s.patterns {
		if strings.ContainsAny(p, `*?[\`) {
			return nil, false
		}
	}
	for _, p := range s.patterns {
		if !slices.Contains(names, p) {
			names = append(names, p)
		}
	}
	return names, len(names) > 0 && len(s.conditions) == 0
}

// Unmatched returns the first pattern that no node matches, or "".
func (s Selector) Unmatched(nodes []Node) string {
	for _, p := range s.patterns {
		if !slices.ContainsFunc(nodes, func(n Node) bool {
			ok, _ := path.Match(p, n.Name)
			return ok
		}) {
			return p
		}
	}
	return ""
}

// Select returns the nodes that the selector picks, in their order. A pattern that
// matches no node is ErrNotFound. Conditions that hold for no node are not an error.
func (s Selector) Select(nodes []Node, now time.Time) ([]Node, error) {
	matched := make([]bool, len(s.patterns))
	var picked []Node
	for _, n := range nodes {
		match := len(s.patterns) == 0
		for i, p := range s.patterns {
			if ok, _ := path.Match(p, n.Name); ok {
				matched[i], match = true, true
			}
		}
		for _, holds := range s.conditions {
			match = match && holds(n, now)
		}
		if match {
			picked = append(picked, n)
		}
	}
	for i, ok := range matched {
		if !ok {
			return nil, fmt.Errorf("node %q: %w", s.patterns[i], ErrNotFound)
		}
	}
	return picked, nil
}
