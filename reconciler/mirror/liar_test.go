package mirror_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/bothy-os/bothy/reconciler/internal/gitliar"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// TestLies lets a server lie to a mirror that has a good commit, and then tell
// the truth.
func TestLies(t *testing.T) {
	want := map[gitliar.Lie]string{
		gitliar.NotAPack:       "not a pack",
		gitliar.Truncated:      "unexpected EOF",
		gitliar.Flipped:        "read pack",
		gitliar.Endless:        "too large",
		gitliar.Slow:           "sends next to nothing; check the server's load",
		gitliar.Silent:         "sends next to nothing",
		gitliar.Invented:       "announced commit 123456789012 but did not send it",
		gitliar.ManyReferences: "list of references has more than",
		gitliar.Gap:            "did not send object",
		gitliar.DeltaBomb:      "too large",
		gitliar.DeltaChain:     "too large",
		gitliar.BadZlib:        "read pack",
		gitliar.ZlibBomb:       "longer than it says",
		gitliar.RedirectLoop:   "redirects more than",
		gitliar.Unauthorized:   "check repository.credentialsFile",
		gitliar.Failing:        "status 500",
		gitliar.WebPage:        "is this the URL of a repository",
		gitliar.Scribble:       "very sorry",
	}
	r := gittest.NewRepo(t)
	r.Write("a", "one")
	first := r.Commit(nil, "first")
	server := gitliar.New(t, r.Dir, false)
	limits := mirror.Limits{Stall: time.Second, Fetch: 2 << 20, Object: 1 << 20, Objects: 16 << 20}
	dirs := map[gitliar.Lie]string{}
	for _, lie := range gitliar.All() {
		dirs[lie] = filepath.Join(t.TempDir(), "git")
		m, err := mirror.Open(dirs[lie], limits)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, m, server.Repository)
	}
	r.Write("b", strings.Repeat("two", 1000))
	second := r.Commit(nil, "second")
	for _, lie := range gitliar.All() {
		t.Run(string(lie), func(t *testing.T) {
			dir := dirs[lie]
			m, err := mirror.Open(dir, limits)
			if err != nil {
				t.Fatal(err)
			}
			before := size(t, dir)
			server.Tell(lie)
			began := time.Now()
			_, err = m.Fetch(context.Background(), mirror.Remote{URL: server.Repository, Branch: "main"}, first)
			var fe *mirror.FetchError
			switch {
			case !errors.As(err, &fe) || !strings.Contains(err.Error(), want[lie]):
				t.Errorf("error %v, want %q", err, want[lie])
			case len(err.Error()) > 700 || strings.ContainsFunc(err.Error(), unicode.IsControl):
				t.Errorf("the server writes into the message: %q", err)
			case time.Since(began) > 10*time.Second:
				t.Errorf("took %s", time.Since(began))
			}
			if tip, err := m.Tip("main"); tip != first || err != nil {
				t.Errorf("tip %s, %v", tip, err)
			}
			if after := size(t, dir); after != before {
				t.Errorf("the lie left %d bytes", after-before)
			}
			server.Tell(gitliar.None)
			if tip := fetch(t, m, server.Repository); tip != second {
				t.Errorf("tip %s", tip)
			}
		})
	}
}
