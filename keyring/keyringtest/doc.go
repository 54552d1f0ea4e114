// Package keyringtest helps to test everything that uses a keyring.
//
//   - [Start] runs a real gnome-keyring on a D-Bus session bus of the test. It does not touch
//     the user's own session.
//   - [StartKeePassXC] runs a real KeePassXC instead.
//   - [StartFake] runs a [Fake] keyring on such a bus, for what a real one cannot be made to do:
//     stay silent, report false success, prompt.
//   - [Contract] is the suite that every keyring must pass, the real ones and those of tests.
//
// # The shared connection
//
// The keyring library keeps one connection to the session bus for the whole process. It makes a
// new one only after that connection has ended. Start ends the connection at the beginning and
// at the end of a session. So the tests of one process may each have a session, one after the
// other. Tests with a session cannot run in parallel; t.Setenv makes sure of that. To use
// several keyrings in one test, stop one provider and start the next one on the same bus.
package keyringtest
