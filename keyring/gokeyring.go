package keyring

import (
	"errors"

	gokeyring "github.com/zalando/go-keyring"
)

// Only this file uses the keyring library. Its functions return nil, one of our sentinels, or
// an untypedError. They can block forever.

func storeGet(service, account string) (value string, err error) {
	err = guard(func() error {
		value, err = gokeyring.Get(service, account)
		return err
	})
	return value, err
}

func storeSet(service, account, value string) error {
	return guard(func() error { return gokeyring.Set(service, account, value) })
}

func storeDelete(service, account string) error {
	return guard(func() error { return gokeyring.Delete(service, account) })
}

// guard maps the library's errors to ours, and turns its panics into errors. The library panics
// when a provider sends a value of an unexpected type, and when the bus disappears during a
// prompt, because it then reads a nil signal.
func guard(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = untypedError("the keyring's answer made no sense")
		}
	}()
	switch err := f(); {
	case err == nil:
		return nil
	case errors.Is(err, gokeyring.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, gokeyring.ErrSetDataTooBig):
		return ErrTooBig
	case errors.Is(err, gokeyring.ErrUnsupportedPlatform):
		return ErrUnsupported
	default:
		return untypedError(errorText(err))
	}
}

// untypedError is the text of an error to which the library gives no type.
type untypedError string

func (e untypedError) Error() string { return string(e) }
