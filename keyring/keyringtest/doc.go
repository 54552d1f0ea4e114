// Package keyringtest serves the tests of everything that uses a keyring.
//
//   - [Start] runs a real gnome-keyring on a D-Bus session bus of the test's own. Nothing
//     of the user's own session is touched.
//   - [StartFake] puts a [Fake] keyring on such a bus, for what a real one cannot be made
//     to show: silence, lies, prompts.
//   - [Contract] is the suite that every keyring passes: the real ones, and those of tests.
//
// # The shared connection
//
// The keyring library keeps one connection to the session bus for the whole process and
// makes a new one only when that has ended. Start ends it when a session begins and when
// it is over, so tests of one process may have a session each, one after the other. Tests
// with a session cannot be parallel to each other, which t.Setenv enforces. To meet several
// keyrings in one test, stop one provider and start the next on the same bus.
package keyringtest
