package keyring_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

func Example() {
	k := keyring.New(keyring.Config{Interactive: true})
	value, err := k.Get(context.Background(), "0123456789abcdef0123456789abcdef")
	switch {
	case err == nil:
		fmt.Println("found; now check that it is ours:", len(value))
	case errors.Is(err, keyring.ErrNotFound):
		fmt.Println("the keyring answered: it has no such item")
	case errors.Is(err, keyring.ErrUnavailable):
		fmt.Println("nobody knows whether there is such an item:", err)
	default:
		fmt.Println("interrupted:", err)
	}
}
