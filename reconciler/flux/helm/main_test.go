package helm_test

import (
	"crypto/sha256"
	"io"
	"log"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestMain takes the kinds out of the scheme of client-go that Helm puts there:
// the fake API server takes that scheme for the list of what client-go has
// schemas of.
func TestMain(m *testing.M) {
	plain := runtime.NewScheme()
	if err := scheme.AddToScheme(plain); err != nil {
		panic(err)
	}
	scheme.Scheme = plain
	os.Exit(m.Run())
}

func sum(content []byte) []byte {
	s := sha256.Sum256(content)
	return s[:]
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
