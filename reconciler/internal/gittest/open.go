package gittest

import "testing"

// OpenRepo returns a repository that another process of the test made with
// [NewRepo].
func OpenRepo(t testing.TB, dir string) *Repo {
	t.Helper()
	Need(t, "git")
	return &Repo{Dir: dir, t: t}
}
