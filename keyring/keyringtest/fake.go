package keyringtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

const (
	secretsName         = "org.freedesktop.secrets"
	serviceInterface    = "org.freedesktop.Secret.Service"
	collectionInterface = "org.freedesktop.Secret.Collection"
	itemInterface       = "org.freedesktop.Secret.Item"
	promptInterface     = "org.freedesktop.Secret.Prompt"
	sessionInterface    = "org.freedesktop.Secret.Session"
	propertyInterface   = "org.freedesktop.DBus.Properties"
	getProperty         = propertyInterface + ".Get"

	secretsPath dbus.ObjectPath = "/org/freedesktop/secrets"
	loginPath   dbus.ObjectPath = "/org/freedesktop/secrets/collection/login"
	sessionPath dbus.ObjectPath = "/org/freedesktop/secrets/session/fake"
	promptPath  dbus.ObjectPath = "/org/freedesktop/secrets/prompt/fake"
	noPath      dbus.ObjectPath = "/"
)

// Mode is the fault of a Fake.
type Mode int

const (
	// Honest: no fault. It passes Contract.
	Honest Mode = iota
	// Silent: it owns the bus name and answers nothing.
	Silent
	// Stalled: it returns its properties and answers nothing else.
	Stalled
	// Lying: creating an item succeeds but stores nothing, as after a prompt that was
	// dismissed.
	Lying
	// Planted: the first result of every search is an item that cannot be deleted. Its value is
	// PlantedValue, or the one given to Plant.
	Planted
	// DismissedPrompt: the collection is locked, and the prompt to unlock it is dismissed at
	// once.
	DismissedPrompt
	// UnansweredPrompt: the collection is locked, and nobody answers the prompt.
	UnansweredPrompt
	// GarbledPrompt: the collection is locked, and the prompt ends with a malformed signal.
	GarbledPrompt
	// NoCollection: there is no collection, and no default alias.
	NoCollection
	// Withholding: it gives a value when it is asked for the one item, and no values when it is
	// asked for several, as if each item were locked.
	Withholding
	// Refusing: creating an item fails. The text of the error contains the value.
	Refusing
)

// PlantedValue is the value of the item in mode Planted.
const PlantedValue = "planted by another program"

// Fake is a small Secret Service with one collection, login. It has faults that real ones
// cannot be made to have.
type Fake struct {
	mode   Mode
	conn   *dbus.Conn
	ctx    context.Context // ends with the test; a method that never answers waits for it
	cancel context.CancelFunc
	once   sync.Once

	prompted     chan struct{}
	promptedOnce sync.Once

	mu      sync.Mutex // guards what follows
	planted string
	made    int // number of items made so far, for their paths
	items   []*item
}

type item struct {
	path       dbus.ObjectPath
	attributes map[string]string
	value      []byte
}

// secret is the structure "Secret" of the Secret Service's interface.
type secret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// StartFake runs a Fake in this process, on the bus at address, until Stop or the end of the
// test. Nothing else may own org.freedesktop.secrets on that bus; see Session.StopProvider.
func StartFake(t testing.TB, address string, mode Mode) *Fake {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &Fake{mode: mode, conn: dial(t, address), ctx: ctx, cancel: cancel, planted: PlantedValue, prompted: make(chan struct{})}
	t.Cleanup(f.Stop)
	for _, export := range []struct {
		path    dbus.ObjectPath
		name    string
		methods map[string]any
	}{
		{secretsPath, propertyInterface, map[string]any{"Get": f.serviceProperty}},
		{secretsPath, serviceInterface, map[string]any{"OpenSession": f.openSession, "GetSecrets": f.getSecrets, "Unlock": f.unlock, "ReadAlias": f.readAlias}},
		{loginPath, propertyInterface, map[string]any{"Get": f.collectionProperty}},
		{loginPath, collectionInterface, map[string]any{"CreateItem": f.createItem, "SearchItems": f.searchItems}},
		{sessionPath, sessionInterface, map[string]any{"Close": f.closeSession}},
		{promptPath, promptInterface, map[string]any{"Prompt": f.prompt}},
	} {
		if mode == NoCollection && export.path == loginPath {
			continue
		}
		if err := f.conn.ExportMethodTable(export.methods, export.path, export.name); err != nil {
			t.Fatal(err)
		}
	}
	err := f.conn.ExportSubtreeMethodTable(map[string]any{"GetSecret": f.getSecret, "SetSecret": f.setSecret, "Delete": f.deleteItem}, loginPath, itemInterface)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := f.conn.RequestName(secretsName, dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: reply %d, %v", secretsName, reply, err)
	}
	return f
}

// Stop takes the Fake off the bus. When it returns, its bus name is free again.
func (f *Fake) Stop() {
	f.once.Do(func() {
		f.conn.ReleaseName(secretsName)
		f.cancel()
		f.conn.Close()
	})
}

// Plant sets the value of the item in mode Planted.
func (f *Fake) Plant(value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.planted = value
}

// Prompted returns a channel that is closed when the Fake is first asked to show a prompt.
func (f *Fake) Prompted() <-chan struct{} { return f.prompted }

// never blocks until the Fake stops.
func (f *Fake) never() { <-f.ctx.Done() }

// call is called at the beginning of every method.
func (f *Fake) call() {
	if f.mode == Silent || f.mode == Stalled {
		f.never()
	}
}

func (f *Fake) serviceProperty(_, name string) (dbus.Variant, *dbus.Error) {
	if f.mode == Silent {
		f.never()
	}
	if name != "Collections" {
		return dbus.Variant{}, dbus.MakeFailedError(fmt.Errorf("no property %s", name))
	}
	if f.mode == NoCollection {
		return dbus.MakeVariant([]dbus.ObjectPath{}), nil
	}
	return dbus.MakeVariant([]dbus.ObjectPath{loginPath}), nil
}

func (f *Fake) collectionProperty(_, name string) (dbus.Variant, *dbus.Error) {
	if name != "Locked" {
		return dbus.Variant{}, dbus.MakeFailedError(fmt.Errorf("no property %s", name))
	}
	return dbus.MakeVariant(f.locked()), nil
}

func (f *Fake) locked() bool {
	return f.mode == DismissedPrompt || f.mode == UnansweredPrompt || f.mode == GarbledPrompt
}

func (f *Fake) openSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	f.call()
	return dbus.MakeVariant(""), sessionPath, nil
}

func (f *Fake) closeSession() *dbus.Error {
	f.call()
	return nil
}

func (f *Fake) readAlias(string) (dbus.ObjectPath, *dbus.Error) {
	f.call()
	return noPath, nil
}

func (f *Fake) unlock(objects []dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	f.call()
	if f.mode == NoCollection {
		return []dbus.ObjectPath{}, noPath, nil
	}
	if f.locked() {
		return []dbus.ObjectPath{}, promptPath, nil
	}
	return objects, noPath, nil
}

// prompt ends the prompt before it returns. The caller listens for the end before it calls.
func (f *Fake) prompt(string) *dbus.Error {
	f.call()
	f.promptedOnce.Do(func() { close(f.prompted) })
	switch f.mode {
	case UnansweredPrompt:
	case GarbledPrompt:
		f.conn.Emit(promptPath, promptInterface+".Completed", "not a boolean")
	default:
		f.conn.Emit(promptPath, promptInterface+".Completed", true, dbus.MakeVariant([]dbus.ObjectPath{}))
	}
	return nil
}

func (f *Fake) createItem(properties map[string]dbus.Variant, s secret, replace bool) (dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	f.call()
	switch f.mode {
	case Lying:
		return noPath, promptPath, nil
	case Refusing:
		return noPath, noPath, dbus.MakeFailedError(fmt.Errorf("cannot store %q", s.Value))
	}
	attributes, ok := properties[itemInterface+".Attributes"].Value().(map[string]string)
	if !ok {
		return noPath, noPath, dbus.MakeFailedError(fmt.Errorf("no attributes"))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if replace {
		for _, i := range f.items {
			if maps.Equal(i.attributes, attributes) {
				i.value = s.Value
				return i.path, noPath, nil
			}
		}
	}
	f.made++
	i := &item{dbus.ObjectPath(fmt.Sprintf("%s/%d", loginPath, f.made)), attributes, s.Value}
	f.items = append(f.items, i)
	return i.path, noPath, nil
}

// plantedPath is the path of the item in mode Planted.
const plantedPath = loginPath + "/planted"

func (f *Fake) searchItems(attributes map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	found := []dbus.ObjectPath{}
	if f.mode == Planted {
		found = append(found, plantedPath)
	}
	for _, i := range f.items {
		matches := true
		for name, value := range attributes {
			matches = matches && i.attributes[name] == value
		}
		if matches {
			found = append(found, i.path)
		}
	}
	return found, nil
}

func (f *Fake) getSecret(m dbus.Message, session dbus.ObjectPath) (secret, *dbus.Error) {
	f.call()
	return f.secret(pathOf(m), session)
}

func (f *Fake) getSecrets(paths []dbus.ObjectPath, session dbus.ObjectPath) (map[dbus.ObjectPath]secret, *dbus.Error) {
	f.call()
	found := map[dbus.ObjectPath]secret{}
	for _, path := range paths {
		if s, err := f.secret(path, session); err == nil && f.mode != Withholding {
			found[path] = s
		}
	}
	return found, nil
}

func (f *Fake) secret(path, session dbus.ObjectPath) (secret, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := secret{Session: session, Parameters: []byte{}, ContentType: "text/plain"}
	if path == plantedPath && f.mode == Planted {
		answer.Value = []byte(f.planted)
		return answer, nil
	}
	for _, i := range f.items {
		if i.path == path {
			answer.Value = i.value
			return answer, nil
		}
	}
	return answer, dbus.MakeFailedError(fmt.Errorf("no item %s", path))
}

// setSecret also reports success for the planted item.
func (f *Fake) setSecret(m dbus.Message, s secret) *dbus.Error {
	f.call()
	if f.mode == Refusing {
		return dbus.MakeFailedError(fmt.Errorf("cannot store %q", s.Value))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.items {
		if i.path == pathOf(m) {
			i.value = s.Value
		}
	}
	return nil
}

// deleteItem also reports success for the planted item.
func (f *Fake) deleteItem(m dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	f.call()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items = slices.DeleteFunc(f.items, func(i *item) bool { return i.path == pathOf(m) })
	return noPath, nil
}

func pathOf(m dbus.Message) dbus.ObjectPath {
	path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	return path
}
