//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keyring

import (
	"context"
	"errors"

	"github.com/godbus/dbus/v5"
)

const secretsItem = "org.freedesktop.Secret.Item"

// secret is a value in the form in which the Secret Service sends it over the bus.
type secret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// getValues returns the values of accounts, and "" for each account without an item. The library
// opens a session for each value; here there is one, and questions do not wait for each other.
// Nothing is unlocked and nobody is asked: if the keyring does not give every value at once, ok is
// false, and the library must be used.
func getValues(ctx context.Context, s *secretService, service string, accounts []string) (values []string, ok bool) {
	session := s.openSession(ctx)
	var searches []*dbus.Call
	for _, a := range accounts {
		searches = append(searches, s.searchItems(ctx, service, a))
	}
	items := make([]dbus.ObjectPath, len(accounts)) // "": none
	var wanted []dbus.ObjectPath
	for i, search := range searches {
		var found []dbus.ObjectPath
		if answer(search, &found) != nil {
			return nil, false
		}
		if len(found) > 0 {
			items[i] = found[0] // as in the library
			wanted = append(wanted, found[0])
		}
	}
	var ignored dbus.Variant
	var path dbus.ObjectPath
	if answer(session, &ignored, &path) != nil {
		return nil, false
	}
	var secrets map[dbus.ObjectPath]secret
	if answer(s.call(ctx, secretsPath, secretsService+".GetSecrets", wanted, path), &secrets) != nil {
		return nil, false
	}
	for _, item := range items {
		found, there := secrets[item]
		if item != "" && !there {
			return nil, false // it is locked
		}
		values = append(values, string(found.Value))
	}
	return values, true
}

// updateItem sets a new secret on the item of account that the library finds, and reports
// whether there is such an item. The collection is unlocked. The library would replace the item
// instead: before that, KeePassXC asks the user and waits for the answer. It does not ask
// before a secret is set. If KeePassXC wants to confirm the access to the item, the error is
// ErrLocked. The other errors are untypedErrors.
func updateItem(ctx context.Context, s *secretService, service, account, value string) (bool, error) {
	var items []dbus.ObjectPath
	if err := answer(s.searchItems(ctx, service, account), &items); err != nil {
		return false, untypedError(errorText(err))
	}
	if len(items) == 0 {
		return false, nil
	}
	var ignored dbus.Variant
	var session dbus.ObjectPath
	if err := answer(s.openSession(ctx), &ignored, &session); err != nil {
		return false, untypedError(errorText(err))
	}
	err := answer(s.call(ctx, items[0], secretsItem+".SetSecret", secret{session, []byte{}, []byte(value), "text/plain; charset=utf8"}))
	var refused dbus.Error
	if errors.As(err, &refused) && refused.Name == "org.freedesktop.Secret.Error.IsLocked" {
		return false, ErrLocked // KeePassXC, if it is set to confirm each access
	}
	if err != nil {
		return false, untypedError(errorText(err))
	}
	return true, nil
}
