// Command rbee-vault is the encrypted home of a GPU fleet's node registry and
// SSH credentials.
package main

import "os"

func main() {
	harden()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
