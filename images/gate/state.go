package gate

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/internal/durable"
)

// state is the file between the agent and the gate.
type state struct {
	// Commit is where the policy comes from.
	Commit string `json:"commit"`
	// Files are the policy's; nil for a site that has none.
	Files policy.Files `json:"files"`
}

// Write puts the policy of an accepted commit in force. Files are nil for a site
// without one.
func Write(file, commit string, files policy.Files) error {
	text, err := json.Marshal(state{Commit: commit, Files: files})
	if err != nil {
		return err
	}
	if _, err := durable.WriteFileIfChanged(file, text, 0o600); err != nil {
		return fmt.Errorf("put the image policy in force: %w", err)
	}
	return nil
}

// inForce is what the gate goes by at a moment.
type inForce struct {
	// policy is nil where the site has none, or err is set.
	policy *policy.Policy
	commit string
	// err is why nothing may run.
	err error

	id identity
}

// hash identifies the policy; nothing does while nothing may run.
func (f *inForce) hash() string {
	switch {
	case f.err != nil:
		return f.err.Error()
	case f.policy == nil:
		return ""
	}
	return f.policy.Hash
}

// identity tells whether a file has been replaced.
type identity struct {
	size     int64
	modified time.Time
	inode    uint64
}

func load(file string, id identity) *inForce {
	f := &inForce{id: id}
	var s state
	if err := durable.ReadJSON(file, &s); err != nil {
		f.err = fmt.Errorf("the image policy in force cannot be read, so nothing new may run: %w; the agent writes it with each accepted commit: see `bothy status`", err)
		return f
	}
	f.commit = s.Commit
	if s.Files == nil {
		return f
	}
	if f.policy, f.err = policy.Compile(s.Files); f.err != nil {
		f.err = fmt.Errorf("the image policy in force cannot be used, so nothing new may run: %w", f.err)
	}
	return f
}

func identify(file string) (identity, error) {
	st, err := os.Stat(file)
	if err != nil {
		return identity{}, err
	}
	return identity{size: st.Size(), modified: st.ModTime(), inode: inode(st)}, nil
}

// missing is in force while there is no file.
func missing(err error) *inForce {
	if pe, ok := err.(*fs.PathError); ok { //nolint:errorlint // os.Stat returns exactly this
		err = pe.Err
	}
	return &inForce{err: fmt.Errorf("no image policy state is there, so nothing new may run: %w; the agent writes it with each accepted commit: see `bothy status`", err)}
}
