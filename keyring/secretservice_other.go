//go:build !((dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd)

package keyring

import (
	"context"
	"runtime"
)

type secretService struct{ locked bool }

func (*secretService) close() {}

// probe has nothing to ask: the login unlocks the Keychain and the Credential Manager, and they
// do not say in advance whether they would prompt.
func probe(context.Context) (*secretService, error) { return &secretService{}, nil }

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
func updateItem(context.Context, *secretService, string, string, string) (bool, error) {
	return false, nil
}

// getValues leaves it to the library.
func getValues(context.Context, *secretService, string, []string) ([]string, bool) {
	return nil, false
}

func errorText(err error) string { return err.Error() }
