package keyringtest

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel kill the process if this one ends without cleaning up, as
// after a panic or a test timeout.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
