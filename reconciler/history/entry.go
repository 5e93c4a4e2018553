package history

import "time"

// Outcome is how the way of a commit ended.
type Outcome string

// The outcomes. The empty one means that the commit is still on its way, or
// that the machine stopped before it had ended.
const (
	// Ready: everything was applied and healthy.
	Ready Outcome = "ready"
	// Degraded: something was refused or did not become healthy.
	Degraded Outcome = "degraded"
	// Superseded: a newer commit came first.
	Superseded Outcome = "superseded"
)

// Entry is one accepted commit.
type Entry struct {
	Commit  string `json:"commit"`
	Subject string `json:"subject,omitempty"`
	Author  string `json:"author,omitempty"`
	// Signer, Kind and Fingerprint say who signed it, and with what; empty if
	// the site does not verify commits.
	Signer      string `json:"signer,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	// From is the commit that the site ran before; empty for the first.
	From string `json:"from,omitempty"`
	// Source is where the commit came from.
	Source string `json:"source,omitempty"`

	CommittedAt time.Time `json:"committedAt,omitzero"`
	AcceptedAt  time.Time `json:"acceptedAt,omitzero"`
	AppliedAt   time.Time `json:"appliedAt,omitzero"`
	EndedAt     time.Time `json:"endedAt,omitzero"`

	Outcome Outcome `json:"outcome,omitempty"`
	// Message explains an outcome that is not Ready.
	Message string   `json:"message,omitempty"`
	Changes *Changes `json:"changes,omitempty"`
	// Steps are what its way consisted of, in their order.
	Steps []Step `json:"steps,omitempty"`
}

// Step is a part of a commit's way.
type Step struct {
	Name string `json:"name"`
	// Took is in nanoseconds.
	Took time.Duration `json:"took"`
}

// Changes is what a commit did to the objects of the site's own directory.
type Changes struct {
	Created    int `json:"created"`
	Configured int `json:"configured"`
	Deleted    int `json:"deleted"`
	Unchanged  int `json:"unchanged"`
	// Objects names those that changed, as "created Deployment web/front"; at
	// most MaxObjects of them.
	Objects []string `json:"objects,omitempty"`
}

// MaxObjects bounds how many changed objects an entry names.
const MaxObjects = 50

// Add counts one change, an action such as "created" on an object.
func (c *Changes) Add(action, object string) {
	switch action {
	case "created":
		c.Created++
	case "configured":
		c.Configured++
	case "deleted":
		c.Deleted++
	default:
		c.Unchanged++
		return
	}
	if len(c.Objects) < MaxObjects {
		c.Objects = append(c.Objects, action+" "+object)
	}
}

// merge puts what a later line says over what an earlier one said.
func (e *Entry) merge(later Entry) {
	if !later.AppliedAt.IsZero() {
		e.AppliedAt = later.AppliedAt
	}
	if later.Outcome != "" {
		e.Outcome, e.Message, e.EndedAt = later.Outcome, later.Message, later.EndedAt
	}
	if later.Changes != nil {
		e.Changes = later.Changes
	}
	if len(later.Steps) > 0 {
		e.Steps = later.Steps
	}
}
