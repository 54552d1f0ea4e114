package durable_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// lockFile is the variable that names the file to lock. The test binary, as a separate process,
// locks it until its standard input ends.
const lockFile = "RBEE_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockFile); path != "" {
		lock := durable.NewLock(path)
		take := lock.Exclusive
		if os.Getenv(lockFile+"_HOW") == "shared" {
			take = lock.Shared
		}
		if err := take(context.Background()); err != nil {
			panic(err)
		}
		fmt.Println("held")
		io.Copy(io.Discard, os.Stdin)
		if err := lock.Unlock(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// other is another process that holds a lock.
type other struct {
	cmd *exec.Cmd
	in  io.Closer
}

func holdElsewhere(t *testing.T, path, how string) other {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockFile+"="+path, lockFile+"_HOW="+how)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return other{cmd, in}
}

// release releases the lock. kill kills the process, which cannot release it.
func (o other) release() {
	o.in.Close()
	o.cmd.Wait()
}

func (o other) kill() {
	o.cmd.Process.Kill()
	o.cmd.Wait()
}
