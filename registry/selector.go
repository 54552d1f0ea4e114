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

// ParseSelector parses names and globs (hive-*, [ab]?), of which a node must match
// one, and conditions, all of which must hold, joined by commas:
//
//	status=online       the status is; != is not
//	backend=cuda        the backend is there; != is not
//	cuda>=2             the backend has that many devices: = != < <= > >=; like
//	                    backend=, nothing holds of a node whose backends are unknown
//	seen<10m            the last contact is less long ago; > longer, or never
//
// No pattern stands for all nodes, and no condition for none. The error matches
// ErrInvalid.
func ParseSelector(patterns []string, where string) (Selector, error) {
	s := Selector{patterns: patterns}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return Selector{}, fmt.Errorf("%w: %.80q is no name and no glob", ErrInvalid, p)
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

// operators, the longer before those that they begin with.
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
		return nil, fmt.Errorf("%w: the condition %.80q is none of status=..., backend=..., cuda>=2, seen<10m", ErrInvalid, text)
	}
	name, value := strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+len(operator):])
	var holds condition
	var rule string
	switch name {
	case "status":
		holds, rule = statusCondition(operator, value)
	case "backend":
		holds, rule = backendCondition(operator, value)
	case "seen":
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

// ParseAge parses how long ago something is: 90s, 10m, 36h, or days such as 7d. The
// error matches ErrInvalid.
func ParseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%w: %.80q is no time such as 90s, 10m, 36h or 7d", ErrInvalid, text)
}

// Names returns the names that are meant where nothing else is: no glob and no
// condition. Those can be looked up without reading every node.
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

// Select returns the nodes that are picked, in their order. A name or glob that no
// node matches is ErrNotFound; conditions that none fulfils are no error.
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
