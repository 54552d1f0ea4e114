package vault_test

import (
	"bufio"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// children are the functions of the test binary when it runs as a separate process.
var children = map[string]func(arg string){
	"crash":   crashChild,
	"write":   writeChild,
	"flush":   flushChild,
	"share":   shareChild,
	"crowd":   crowdChild,
	"hold":    holdChild,
	"rotate":  rotateChild,
	"destroy": destroyChild,
	"slots":   slotChild,
	"still":   stillChild,
	"walk":    walkChild,
}

func TestMain(m *testing.M) {
	if name, arg, ok := strings.Cut(os.Getenv("RBEE_TEST_CHILD"), "|"); ok {
		children[name](arg)
		os.Exit(0)
	}
	// A walk makes dozens of vaults. -rapid.checks sets how many walks there are.
	flag.Set("rapid.checks", "8")
	os.Exit(m.Run())
}

// child returns the test binary as a separate process.
func child(name, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RBEE_TEST_CHILD="+name+"|"+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts a child and returns its lines. The child ends with the test.
func start(t *testing.T, cmd *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return bufio.NewScanner(out)
}
