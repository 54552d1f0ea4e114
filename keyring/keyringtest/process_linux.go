package keyringtest

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the process when we end without cleaning up, as after a
// panic or a test timeout.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
