package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// openedBackup is a backup that is read, and where it is.
type openedBackup struct {
	io.ReadCloser
	source string
}

// openBackup opens a backup: a file, standard input, an object of one of the vault's
// targets (NAME/OBJECT, NAME for its newest) or of any place (s3://BUCKET/PREFIX/OBJECT). A
// pipe or an object is read to its end first, so that the vault in place is not locked while
// the data comes in.
func (o readOptions) openBackup(ctx context.Context, a *app, arg string) (openedBackup, error) {
	if err := o.checkSource(a, arg); err != nil {
		return openedBackup{}, err
	}
	place, object, remote := parsePlace(arg)
	if !remote {
		in, err := a.openArgument(ctx, arg, "the backup")
		if err != nil || in.regular {
			return openedBackup{in, arg}, err
		}
		defer in.Close()
		f, err := spool(in)
		return openedBackup{f, arg}, err
	}
	store, err := o.openPlace(ctx, a, place)
	if err != nil {
		return openedBackup{}, err
	}
	return a.fetch(ctx, store, place, object)
}

// checkSource refuses what can be no backup, without opening anything. What is not in this
// machine's files may be in a target.
func (o readOptions) checkSource(a *app, arg string) error {
	if f, ok := a.stdin.(*os.File); ok && arg == "-" && term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%w: standard input is a terminal, not a backup", vault.ErrInvalid)
	}
	if o.storeOptions != (storeOptions{}) && !isBucketURL(arg) {
		return usagef("--endpoint, --region and --profile go with s3://BUCKET/PREFIX alone")
	}
	if _, _, remote := parsePlace(arg); remote || arg == "-" {
		return nil
	}
	return checkInput(arg)
}

// parsePlace tells a backup in a target or a bucket from a file. place is the name or the
// address, object what follows it, if anything does. A file that exists is a file.
func parsePlace(arg string) (place, object string, remote bool) {
	url := isBucketURL(arg)
	if !url {
		info, err := os.Stat(arg)
		isDir := err == nil && info.IsDir() // which is no backup: the name may be a target's too
		if arg == "-" || !errors.Is(err, fs.ErrNotExist) && !isDir {
			return "", "", false
		}
	}
	if i := strings.LastIndexByte(arg, '/'); i >= 0 && backup.IsObjectName(cutVersion(arg[i+1:])) {
		place, object = arg[:i], arg[i+1:]
	} else {
		place = arg
	}
	return place, object, url || backup.IsTargetName(place)
}

func isBucketURL(arg string) bool { return strings.HasPrefix(arg, "s3://") }

// versionMark stands between an object and its version.
const versionMark = "?versionId="

func cutVersion(object string) string {
	name, _, _ := strings.Cut(object, versionMark)
	return name
}

// openPlace opens the store of a bucket's address, or of a target of the vault in place.
func (o readOptions) openPlace(ctx context.Context, a *app, place string) (store backup.Store, err error) {
	if isBucketURL(place) {
		return backup.OpenStore(ctx, o.target("address", place))
	}
	open := func(v *vault.Vault) error {
		store, err = backup.OpenTarget(ctx, v, place)
		return err
	}
	if o.vault != nil {
		err = open(o.vault)
	} else {
		err = a.withVault(ctx, open)
	}
	if errors.Is(err, registry.ErrNotFound) || errors.Is(err, vault.ErrNoVault) {
		return nil, withHint(fmt.Errorf("%q: %w: it is no file, and no target that a vault here knows", place, fs.ErrNotExist),
			"Without the vault give the bucket's address: s3://BUCKET/PREFIX, with --endpoint and --region where it needs them")
	}
	return store, err
}

// fetch copies an object, or the newest one, into a file without a name.
func (a *app) fetch(ctx context.Context, store backup.Store, place, object string) (openedBackup, error) {
	name, version, _ := strings.Cut(object, versionMark)
	if name == "" {
		newest, err := a.chooseNewest(ctx, store, place)
		if err != nil {
			return openedBackup{}, err
		}
		name, version = newest.Name, newest.Version
	}
	in, err := store.Open(ctx, name, version)
	if err != nil {
		return openedBackup{}, err
	}
	defer in.Close()
	f, err := spool(in)
	if err != nil {
		return openedBackup{}, err
	}
	return openedBackup{f, objectPath(place, backup.Object{Name: name, Version: version})}, nil
}

// chooseNewest takes the newest backup by its name, and says which that is: whoever may
// write there chooses names. What is in it is verified as ever.
func (a *app) chooseNewest(ctx context.Context, store backup.Store, place string) (backup.Object, error) {
	objects, err := backup.Newest(ctx, store)
	if err != nil {
		return backup.Object{}, err
	}
	if len(objects) == 0 {
		return backup.Object{}, fmt.Errorf("a backup in %s: %w", place, registry.ErrNotFound)
	}
	a.ui.info("Reading %s, the newest by its name of %d.", objectPath(place, objects[0]), len(objects))
	if objects[0].Hidden {
		a.ui.warn("a delete marker or another object was put over it")
	}
	if len(objects) > 1 {
		a.ui.info("If it is not yours, or damaged, take another, such as %s", objectPath(place, objects[1]))
	}
	return objects[0], nil
}

// objectPath names an object as an argument does.
func objectPath(place string, o backup.Object) string {
	path := strings.TrimRight(place, "/") + "/" + o.Name
	if o.Version != "" {
		path += versionMark + o.Version
	}
	return path
}
