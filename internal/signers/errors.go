package signers

// Class says what kind of problem a signature has.
type Class string

// The classes of problems, from "there is nothing to check" to "the check
// failed".
const (
	// Unsigned: the commit carries no signature.
	Unsigned Class = "unsigned"
	// Unsupported: a signature kind or algorithm that is never accepted.
	Unsupported Class = "unsupported"
	// Malformed: the commit object or its signature cannot be parsed.
	Malformed Class = "malformed"
	// WrongNamespace: an SSH signature made for something other than git.
	WrongNamespace Class = "wrong namespace"
	// UnknownKey: a signature by a key that is not in the trust root.
	UnknownKey Class = "unknown key"
	// Untrusted: a certificate that no pinned authority issued.
	Untrusted Class = "certificate not trusted"
	// Untimed: a certificate's signature whose time nobody trusted attests.
	Untimed Class = "no trusted time"
	// Expired: a known key used outside its validity.
	Expired Class = "expired"
	// Revoked: a known key that its owner withdrew.
	Revoked Class = "revoked"
	// Mismatch: a known key, but the signature is not of this commit.
	Mismatch Class = "signature does not match"
)

// Error is a reason not to believe a signature.
type Error struct {
	Class Class
	// Problem completes the sentence "commit X ...".
	Problem string
	// Remedy is what the author of the commit can do; empty if nothing.
	Remedy string
	// Err is the underlying error of a library, if any.
	Err error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Problem + ": " + e.Err.Error()
	}
	return e.Problem
}

// Unwrap returns the library's error.
func (e *Error) Unwrap() error { return e.Err }

const signAgain = "sign it: git commit --amend -S, then git push --force-with-lease"
