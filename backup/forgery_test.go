package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// entryOf is a member of an unpacked archive.
type entryOf struct {
	header tar.Header
	data   []byte
}

// forgery is what a forger has: the members of an archive, and the recipient.
type forgery struct {
	identity *age.X25519Identity
	signer   string // fingerprint of the vault's signer
	members  []entryOf
}

func newForgery(t testing.TB, more ...func(*registry.Registry) error) forgery {
	t.Helper()
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	n := registry.Node{Name: "hive-01", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	if err := registry.New(v).CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	for _, fill := range more {
		if err := fill(registry.New(v)); err != nil {
			t.Fatal(err)
		}
	}
	var file bytes.Buffer
	c, err := Create(t.Context(), v, CreateOptions{Writer: &file})
	if err != nil {
		t.Fatal(err)
	}
	f := forgery{identity: cfg.Identities[0].(*age.X25519Identity), signer: c.Signer}
	plain, err := age.Decrypt(&file, f.identity)
	if err != nil {
		t.Fatal(err)
	}
	zipped, err := gzip.NewReader(plain)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			return f
		}
		data, e := io.ReadAll(r)
		if err := errors.Join(err, e); err != nil {
			t.Fatal(err)
		}
		f.members = append(f.members, entryOf{*h, data})
	}
}

// pack makes the tar of the members.
func (f forgery) pack() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range f.members {
		h := m.header
		h.Size = int64(len(m.data))
		if h.Typeflag == tar.TypeSymlink {
			h.Size = 0
		}
		w.WriteHeader(&h)
		if h.Size > 0 {
			w.Write(m.data)
		}
	}
	w.Close()
	return b.Bytes()
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func (f forgery) seal(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, f.identity.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (f forgery) verify(t testing.TB, file []byte) error {
	_, err := Verify(t.Context(), bytes.NewReader(file), ReadOptions{Identities: []age.Identity{f.identity}, Trust: TrustSigners(f.signer)})
	return err
}

func (f *forgery) find(name string) *entryOf {
	for i := range f.members {
		if f.members[i].header.Name == name {
			return &f.members[i]
		}
	}
	return nil
}

// resign makes the sums and the signature again, with a key of the forger.
func (f *forgery) resign(t *testing.T, keepSigner bool) {
	t.Helper()
	other := vaulttest.New(t)
	err := other.View(t.Context(), func(tx *vault.Tx) error {
		signer, err := tx.Signer(t.Context())
		if err != nil {
			return err
		}
		meta, err := tx.Meta(t.Context())
		if err != nil {
			return err
		}
		m, err := parseManifest(f.find(memberManifest).data)
		if err != nil {
			return err
		}
		if !keepSigner {
			m.Signer = meta.Signer
			f.signer = vault.Fingerprint(meta.Signer)
			f.setSigner(meta.Signer)
		}
		var b bytes.Buffer
		m.encode(&b)
		f.find(memberManifest).data = b.Bytes()
		var sums []sum
		for _, e := range f.members[2:] {
			sums = append(sums, sum{e.header.Name, hashOf(e.data)})
		}
		f.members[0].data = encodeSums(sums)
		f.members[1].data, err = vault.Sign(f.members[0].data, signer, vault.SignatureNamespace)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// setSigner makes a key the only one in the list of signers.
func (f *forgery) setSigner(line string) {
	s, _ := vault.Signer{Generation: 1, PublicKey: line}.MarshalJSON()
	f.find(memberSigners).data = append(s, '\n')
}

// resignAs is resign with another namespace or hash in the signature.
func (f *forgery) resignAs(t *testing.T, namespace string, hash sshsig.HashAlgorithm) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseManifest(f.find(memberManifest).data)
	if err != nil {
		t.Fatal(err)
	}
	m.Signer = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	f.signer = vault.Fingerprint(m.Signer)
	var b bytes.Buffer
	m.encode(&b)
	f.find(memberManifest).data = b.Bytes()
	f.setSigner(m.Signer)
	var sums []sum
	for _, e := range f.members[2:] {
		sums = append(sums, sum{e.header.Name, hashOf(e.data)})
	}
	f.members[0].data = encodeSums(sums)
	sig, err := sshsig.Sign(bytes.NewReader(f.members[0].data), signer, hash, namespace)
	if err != nil {
		t.Fatal(err)
	}
	f.members[1].data = sshsig.Armor(sig)
}

func firstHash(sums []byte) string { return string(sums[:64]) }

// signAs makes the counts, the sums and the signature again, with a new signer, which is
// then trusted. The list of signers stays.
func (f *forgery) signAs(t testing.TB, signer ssh.Signer) {
	t.Helper()
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	f.signer = vault.Fingerprint(line)
	f.countAgain(line)
	f.sumAgain()
	var err error
	if f.members[1].data, err = vault.Sign(f.members[0].data, signer, vault.SignatureNamespace); err != nil {
		t.Fatal(err)
	}
}

// fixedSigner returns always the same signer.
func fixedSigner(t testing.TB) (signer ssh.Signer, line string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// countAgain sets the counts and the signer in the manifest, if that can be parsed.
func (f *forgery) countAgain(signer string) {
	m, err := parseManifest(f.find(memberManifest).data)
	if err != nil {
		return
	}
	count := func(name string) int64 { return int64(bytes.Count(f.find(name).data, []byte("\n"))) }
	m.Signer = signer
	m.Counts = Counts{
		Signers:   count(memberSigners),
		Nodes:     count(memberNodes),
		SSHKeys:   count(memberSSHKeys),
		Rotations: count(memberRotations),
		HostKeys:  count(memberHostKeys),
		Targets:   count(memberTargets),
		Settings:  count(memberSettings),
		AuditLog:  count(memberAuditLog),
		Slots:     count(memberSlots),
	}
	log := bytes.TrimSuffix(f.find(memberAuditLog).data, []byte("\n"))
	var last vault.AuditRow
	if json.Unmarshal(log[bytes.LastIndexByte(log, '\n')+1:], &last) == nil {
		m.AuditSeq, m.AuditHash = last.Seq, hex.EncodeToString(last.Hash[:])
	}
	var b bytes.Buffer
	m.encode(&b)
	f.find(memberManifest).data = b.Bytes()
}

// sumAgain makes the sums of the members again.
func (f *forgery) sumAgain() {
	var sums []sum
	for _, e := range f.members[2:] {
		sums = append(sums, sum{e.header.Name, hashOf(e.data)})
	}
	f.members[0].data = encodeSums(sums)
}
