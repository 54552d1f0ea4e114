//go:build !linux

package keyringtest

import "os/exec"

func endWithParent(*exec.Cmd) {}
