//go:build !((dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd)

package keyring

import (
	"context"
	"runtime"
)

// probe has nothing to ask: the login unlocks the Keychain and the Credential Manager, and they
// do not say in advance whether they would prompt.
func probe(context.Context) (locked bool, err error) { return false, nil }

func providerName(context.Context) (string, error) {
	switch runtime.GOOS {
	case "darwin":
		return "macOS Keychain", nil
	case "windows":
		return "Windows Credential Manager", nil
	default:
		return "", ErrUnsupported
	}
}

// updateItem does nothing: these keyrings replace an item without asking.
func updateItem(context.Context, string, string, string) (bool, error) { return false, nil }

func errorText(err error) string { return err.Error() }
