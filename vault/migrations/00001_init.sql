-- +goose Up

-- "RBEE": marks the file as a vault of rbee.
PRAGMA application_id = 1380074821;

-- The registry, with the columns that its users know. Without a rowid, a node is found in one
-- tree, and a new one is written to one page in place of two.
CREATE TABLE beehives (
    node_name TEXT PRIMARY KEY NOT NULL,
    ssh_host TEXT NOT NULL,
    ssh_port INTEGER NOT NULL DEFAULT 22,
    ssh_user TEXT NOT NULL,
    ssh_key_path TEXT,
    git_repo_url TEXT NOT NULL,
    git_branch TEXT NOT NULL,
    install_path TEXT NOT NULL,
    last_connected_unix INTEGER,
    status TEXT NOT NULL DEFAULT 'unknown',
    backends TEXT,
    devices TEXT
) WITHOUT ROWID;

-- What else is known of a node: a row only where there is something to say. The jump is
-- compared at commit, so nodes may be written in any order.
CREATE TABLE node_details (
    node_name TEXT PRIMARY KEY NOT NULL REFERENCES beehives (node_name) ON UPDATE CASCADE ON DELETE CASCADE,
    proxy_jump TEXT REFERENCES beehives (node_name) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED,
    note TEXT
);

CREATE INDEX node_details_proxy_jump ON node_details (proxy_jump);

CREATE TABLE node_labels (
    node_name TEXT NOT NULL REFERENCES beehives (node_name) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (node_name, key)
);

-- Which nodes changed, newest last: a reader that keeps nodes in memory reads only these again.
-- The oldest rows go; who is further behind reads everything.
CREATE TABLE node_changes (
    seq INTEGER PRIMARY KEY,
    node_name TEXT NOT NULL
);

-- +goose StatementBegin
CREATE TRIGGER node_changes_bound AFTER INSERT ON node_changes WHEN NEW.seq % 1024 = 0
BEGIN DELETE FROM node_changes WHERE seq <= NEW.seq - 8192; END;

CREATE TRIGGER beehives_inserted AFTER INSERT ON beehives
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER beehives_updated AFTER UPDATE ON beehives
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER beehives_renamed AFTER UPDATE OF node_name ON beehives WHEN OLD.node_name <> NEW.node_name
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;

CREATE TRIGGER beehives_deleted AFTER DELETE ON beehives
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;

CREATE TRIGGER node_details_inserted AFTER INSERT ON node_details
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER node_details_updated AFTER UPDATE ON node_details
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER node_details_renamed AFTER UPDATE OF node_name ON node_details WHEN OLD.node_name <> NEW.node_name
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;

CREATE TRIGGER node_details_deleted AFTER DELETE ON node_details
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;

CREATE TRIGGER node_labels_inserted AFTER INSERT ON node_labels
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER node_labels_updated AFTER UPDATE ON node_labels
BEGIN INSERT INTO node_changes (node_name) VALUES (NEW.node_name); END;

CREATE TRIGGER node_labels_renamed AFTER UPDATE OF node_name ON node_labels WHEN OLD.node_name <> NEW.node_name
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;

CREATE TRIGGER node_labels_deleted AFTER DELETE ON node_labels
BEGIN INSERT INTO node_changes (node_name) VALUES (OLD.node_name); END;
-- +goose StatementEnd

-- Below, times are Unix milliseconds and binary values stored as text are
-- lower-case hex.

-- One row: what the vault is.
CREATE TABLE vault_meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    vault_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created INTEGER NOT NULL,
    key_created INTEGER NOT NULL,
    class TEXT NOT NULL CHECK (class IN ('classic', 'post-quantum')),
    keyring INTEGER NOT NULL CHECK (keyring IN (0, 1)),
    slots_seq INTEGER NOT NULL,
    signer TEXT NOT NULL,       -- public key line
    signing_key BLOB NOT NULL,  -- sealed
    binding TEXT NOT NULL,      -- the signer's signature over vault_id, key_id and check value
    origin_vault_id TEXT,       -- restored from
    origin_signer TEXT          -- public key line
);

-- The keys that signed for the vault: a new one with each generation of its key,
-- certified by the one before. The newest is vault_meta.signer.
CREATE TABLE signers (
    generation INTEGER PRIMARY KEY,
    public_key TEXT NOT NULL,   -- line
    certificate TEXT,           -- the signature of the one before; null: the first
    created INTEGER NOT NULL,
    sheet INTEGER               -- when a sheet or identity file with it was handed out
);

-- The unlock methods besides the keyring. The slots file is a rendering of this table.
CREATE TABLE slots (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    person TEXT,                -- who it belongs to; stands in the audit log
    recipient TEXT NOT NULL,
    identity TEXT,              -- a passphrase slot's identity, encrypted
    vouch TEXT,                 -- the recipient's own word for the signer
    wrapped TEXT NOT NULL,      -- the key line, armored age
    created INTEGER NOT NULL
);

CREATE TABLE ssh_keys (
    fingerprint TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    public_key TEXT NOT NULL,
    comment TEXT NOT NULL,
    private_key BLOB NOT NULL,  -- sealed
    created INTEGER NOT NULL,
    used INTEGER
);

-- A node uses one key; a key may serve many nodes.
CREATE TABLE beehive_ssh_keys (
    node_name TEXT PRIMARY KEY NOT NULL REFERENCES beehives (node_name) ON UPDATE CASCADE ON DELETE CASCADE,
    fingerprint TEXT NOT NULL REFERENCES ssh_keys (fingerprint)
);

CREATE INDEX beehive_ssh_keys_fingerprint ON beehive_ssh_keys (fingerprint);

CREATE TABLE host_keys (
    node_name TEXT NOT NULL REFERENCES beehives (node_name) ON UPDATE CASCADE ON DELETE CASCADE,
    type TEXT NOT NULL,
    public_key TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (node_name, public_key)
);

-- A node whose SSH key is being replaced: a row until the old key is gone.
CREATE TABLE key_rotations (
    node_name TEXT PRIMARY KEY NOT NULL REFERENCES beehives (node_name) ON UPDATE CASCADE ON DELETE CASCADE,
    old_fingerprint TEXT NOT NULL REFERENCES ssh_keys (fingerprint),
    new_fingerprint TEXT NOT NULL REFERENCES ssh_keys (fingerprint),
    step TEXT NOT NULL CHECK (step IN ('pending', 'switched', 'saved'))
);

CREATE INDEX key_rotations_old_fingerprint ON key_rotations (old_fingerprint);

CREATE INDEX key_rotations_new_fingerprint ON key_rotations (new_fingerprint);

-- Each row's hash covers the row and the hash before it.
CREATE TABLE audit_log (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    via TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT,
    detail TEXT,
    digest TEXT NOT NULL,       -- of the rows that the change left behind
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
);

-- A backup: the row is begun before anything is written. Its columns from size to signer are
-- null until a copy of it is in place.
CREATE TABLE backups (
    sequence INTEGER PRIMARY KEY,
    created INTEGER NOT NULL,
    size INTEGER,
    sha256 TEXT,                -- of the file
    sums_sha256 TEXT,           -- of its SHA256SUMS
    content_hash TEXT,          -- of what it says of the registry, whenever it was made
    digest TEXT,                -- audit_log.digest at that moment
    audit_seq INTEGER,          -- the last audit row in it
    audit_hash TEXT,
    nodes INTEGER,
    ssh_keys INTEGER,
    signer TEXT,                -- fingerprint
    confirmed INTEGER,          -- the newest run that found nothing to back up since
    verified INTEGER            -- when a copy was last read to its end
);

-- Who can open a backup. A slot that was removed since is still named here.
CREATE TABLE backup_recipients (
    sequence INTEGER NOT NULL REFERENCES backups (sequence) ON DELETE CASCADE,
    recipient TEXT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (sequence, recipient)
);

-- Where the copies of a backup are. A row is begun, with the copy's name, before the copy is written.
CREATE TABLE backup_copies (
    sequence INTEGER NOT NULL REFERENCES backups (sequence) ON DELETE CASCADE,
    target TEXT NOT NULL,       -- "": a file named by the operator
    place TEXT,                 -- the target's URL and endpoint; the name may be given again
    name TEXT NOT NULL,         -- in the target; without one an absolute path, or "-": standard output
    written INTEGER,            -- null: not, or not known
    version TEXT,               -- of the object, where the target keeps versions
    locked_until INTEGER,       -- the target deletes it no earlier
    failed TEXT,                -- why it was not written
    gone INTEGER,               -- since when it is known to be removed
    PRIMARY KEY (sequence, target, name)
);

-- Restores that were tried out.
CREATE TABLE backup_drills (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    sequence INTEGER,           -- null: not a backup of this vault
    sums_sha256 TEXT NOT NULL,
    unlocked_by TEXT NOT NULL,
    took INTEGER NOT NULL,      -- milliseconds
    failed TEXT,                -- null: it restores
    receipt TEXT NOT NULL,
    signature TEXT NOT NULL     -- the signer's, over the receipt
);

-- A place where backups are written. It is configuration, so the content digest covers it.
CREATE TABLE backup_targets (
    name TEXT PRIMARY KEY NOT NULL,
    url TEXT NOT NULL,          -- dir:/PATH or s3://BUCKET/PREFIX
    endpoint TEXT,
    region TEXT,
    profile TEXT,               -- of the machine's own credentials
    access_key TEXT,
    secret BLOB,                -- sealed; null: the machine's own credentials
    retain INTEGER,             -- seconds that a new object is locked
    conditional INTEGER NOT NULL CHECK (conditional IN (0, 1)),
    checksum INTEGER NOT NULL CHECK (checksum IN (0, 1)),
    created INTEGER NOT NULL
);

-- Defaults of the commands, such as the user of a new node. They are configuration too.
CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
