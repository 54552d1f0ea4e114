package vault

// EventAction is a kind of event in the audit log: an [Action] or an [UrgentAction]. Their
// names are promises, as JSON names are.
type EventAction interface {
	name() string
	urgency() urgency
}

// Action is a kind of event that the keyring's anchor follows within a minute, such as
// "node.add". Packages declare theirs as constants.
type Action string

// UrgentAction is a kind of event about the vault itself, its slots or its backups. The
// anchor follows it at once.
type UrgentAction string

var (
	_ EventAction = Action("")
	_ EventAction = UrgentAction("")
)

func (a Action) name() string { return string(a) }

func (a Action) urgency() urgency { return urgencySoon }

func (a UrgentAction) name() string { return string(a) }

func (a UrgentAction) urgency() urgency { return urgencyNow }

// The actions of this package.
const (
	ActionInit           UrgentAction = "vault.init"
	ActionRestore        UrgentAction = "vault.restore"
	ActionRefuseRestore  UrgentAction = "vault.restore-refused" // a program refused to restore a backup over the vault
	ActionRotate         UrgentAction = "vault.rotate"
	ActionMigrate        UrgentAction = "vault.migrate"
	ActionAcceptRollback UrgentAction = "vault.accept-rollback"
	ActionAddSlot        UrgentAction = "slot.add"
	ActionRemoveSlot     UrgentAction = "slot.remove"
	ActionStoreVouch     UrgentAction = "slot.vouch" // a slot vouches for the signer from now on
)

// urgency says how soon the anchor must follow an audit row.
type urgency int

const (
	urgencyNone urgency = iota // there is no audit row
	urgencySoon                // within a minute
	urgencyNow
)
