package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

var scratch string // a directory for the programs that the benchmarks build

func TestMain(m *testing.M) {
	flag.Parse()
	if *memoryChild != "" {
		err := runMemoryChild(context.Background(), *memoryChild)
		peak, e := peakMemory()
		if err := errors.Join(err, e); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(peak)
		return
	}
	var err error
	if scratch, err = os.MkdirTemp("", "bench"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

// build builds a program from a package in a directory, and returns its path.
func build(dir, pkg, name string) (string, error) {
	path := filepath.Join(scratch, name)
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

var buildReference = sync.OnceValues(func() (string, error) { return build("plaintext", ".", "plaintext") })

// reference is the plaintext registry, in a process of its own.
type reference struct {
	path    string // of its database
	stdin   io.WriteCloser
	answers *bufio.Scanner
	cmd     *exec.Cmd
}

// startReference starts it with nodes of its own.
func startReference(tb testing.TB, nodes []registry.Node) *reference {
	tb.Helper()
	program, err := buildReference()
	if err != nil {
		tb.Fatal(err)
	}
	ref := &reference{path: filepath.Join(tb.TempDir(), "plain.db")}
	ref.cmd = exec.Command(program, ref.path)
	ref.cmd.Stderr = os.Stderr
	if ref.stdin, err = ref.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	stdout, err := ref.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	ref.answers = bufio.NewScanner(stdout)
	if err := ref.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ref.stop(tb) })
	lines := bufio.NewWriter(ref.stdin)
	for _, n := range nodes {
		line, err := json.Marshal(n)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(lines, "%s\n", line)
	}
	fmt.Fprintln(lines)
	if err := lines.Flush(); err != nil {
		tb.Fatal(err)
	}
	if answer := ref.answer(tb); answer != "ready" {
		tb.Fatalf("the reference answers %q", answer)
	}
	return ref
}

// stop ends the process, which closes its database. It may be called again.
func (ref *reference) stop(tb testing.TB) {
	if ref.stdin == nil {
		return
	}
	ref.stdin.Close()
	ref.stdin = nil
	if err := ref.cmd.Wait(); err != nil {
		tb.Errorf("the reference ended badly: %v", err)
	}
}

func (ref *reference) answer(tb testing.TB) string {
	tb.Helper()
	if !ref.answers.Scan() {
		tb.Fatalf("the reference is silent: %v", ref.answers.Err())
	}
	return ref.answers.Text()
}

// request has the reference do something, and returns the numbers of its answer.
func (ref *reference) request(tb testing.TB, format string, args ...any) (took time.Duration, more int) {
	tb.Helper()
	if _, err := fmt.Fprintf(ref.stdin, format+"\n", args...); err != nil {
		tb.Fatal(err)
	}
	answer := ref.answer(tb)
	if _, err := fmt.Sscan(answer, &took, &more); took <= 0 {
		tb.Fatalf("%s: the reference answers %q (%v)", strings.TrimSpace(fmt.Sprintf(format, args...)), answer, err)
	}
	return took, more
}

// side has the reference do an operation n times.
func (ref *reference) side(tb testing.TB, op string) side {
	return func(n int) time.Duration {
		took, _ := ref.request(tb, "%s %d", op, n)
		return took
	}
}
