//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keyring

import (
	"context"
	"errors"

	"github.com/godbus/dbus/v5"
)

const secretsItem = "org.freedesktop.Secret.Item"

// secret is a value on its way over the bus, as the Secret Service has it.
type secret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// updateItem gives the item of account, the one that the library finds, another secret,
// and reports whether there is one. The collection is unlocked. KeePassXC asks before an
// item is replaced, as the library does it, and waits for the answer; it does not ask
// before an item's secret is set. An item that it would confirm access to is ErrLocked;
// the other errors are untypedErrors.
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
		return false, ErrLocked // KeePassXC, where it is to confirm each access
	}
	if err != nil {
		return false, untypedError(errorText(err))
	}
	return true, nil
}
