// Command rbee-vault is the encrypted home of a GPU fleet's node registry and
// SSH credentials.
package main

import (
	"os"
	"path/filepath"
)

func main() {
	harden()
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == sshLink {
		args = append([]string{"ssh"}, args...)
	}
	os.Exit(run(args, os.Stdin, os.Stdout, os.Stderr))
}
