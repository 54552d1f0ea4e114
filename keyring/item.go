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

// updateItem sets a new secret on the item of account that the library finds, and reports
// whether there is such an item. The collection is unlocked. The library would replace the item
// instead: before that, KeePassXC asks the user and waits for the answer. It does not ask
// before a secret is set. If KeePassXC wants to confirm the access to the item, the error is
// ErrLocked. The other errors are untypedErrors.
func updateItem(ctx context.Context, service, account, value string) (bool, error) {
	conn, err := connect(ctx)
	if err != nil {
		return false, untypedError(errorText(err))
	}
	defer conn.Close()
	collection, err := collectionPath(ctx, conn)
	if err != nil {
		return false, untypedError(errorText(err))
	}
	var items []dbus.ObjectPath
	err = conn.Object(secretsName, collection).
		CallWithContext(ctx, secretsColl+".SearchItems", 0, map[string]string{"username": account, "service": service}).Store(&items)
	if err != nil {
		return false, untypedError(errorText(err))
	}
	if len(items) == 0 {
		return false, nil
	}
	var ignored dbus.Variant
	var session dbus.ObjectPath
	err = conn.Object(secretsName, secretsPath).
		CallWithContext(ctx, secretsService+".OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&ignored, &session)
	if err != nil {
		return false, untypedError(errorText(err))
	}
	// The session ends with the connection.
	err = conn.Object(secretsName, items[0]).
		CallWithContext(ctx, secretsItem+".SetSecret", 0, secret{session, []byte{}, []byte(value), "text/plain; charset=utf8"}).Err
	var refused dbus.Error
	if errors.As(err, &refused) && refused.Name == "org.freedesktop.Secret.Error.IsLocked" {
		return false, ErrLocked // KeePassXC, if it is set to confirm each access
	}
	if err != nil {
		return false, untypedError(errorText(err))
	}
	return true, nil
}
