// Command plaintext is what the benchmarks compare a vault with: a registry of
// nodes on plain SQLite, written as by somebody who has nothing to hide. It is
// a program and a module of its own: its driver and the vault's cannot be
// linked into one binary, and the vault's module shall not know it.
//
// It makes a database at the path given, takes its nodes from standard input,
// one JSON object a line up to an empty line, and then answers requests, one a
// line, with a line each: the nanoseconds that it took, or why it failed.
//
//	get N       N single nodes, one after the other
//	prepared N  the same, by a statement prepared once
//	list N      all nodes, N times
//	add N       N new nodes, each by one statement
//	audited N   N new nodes, each with an audit row in one transaction
//	status N    N changes of a status, each by one statement
//	open N      opening, reading one node, closing, N times
//	write N     all nodes, and a thousand keys of 400 bytes, into a new database
//	            in one transaction, N times
//	mixed N R   N reads by eight readers beside a writer that makes at most R
//	            changes a second, or as many as it can (0); answers their number too
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: plaintext DATABASE")
		os.Exit(64)
	}
	if err := run(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "plaintext:", err)
		os.Exit(1)
	}
}

func run(path string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	var nodes []node
	for lines.Scan() && lines.Text() != "" {
		var n node
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return fmt.Errorf("read node: %w", err)
		}
		nodes = append(nodes, n)
	}
	s, err := create(path, nodes)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines.Scan() {
		answer, err := s.serve(lines.Text())
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return s.close()
}

// serve does what one line asks for.
func (s *store) serve(request string) (string, error) {
	var op string
	var n, rate int
	fmt.Sscan(request, &op, &n, &rate)
	if op == "mixed" {
		took, written, err := s.mixed(n, rate)
		return fmt.Sprint(took.Nanoseconds(), " ", written), err
	}
	do, ok := map[string]func(i int) error{
		"get":      s.get,
		"prepared": s.getPrepared,
		"list":     s.list,
		"add":      s.add,
		"audited":  s.addAudited,
		"status":   s.status,
		"open":     s.open,
		"write":    s.write,
	}[op]
	if !ok {
		return "", fmt.Errorf("unknown request %q", request)
	}
	start := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return "", err
		}
	}
	return fmt.Sprint(time.Since(start).Nanoseconds()), nil
}
