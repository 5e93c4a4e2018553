package cosign_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/internal/cosign"
)

// TestSigstoreConformance judges what Sigstore's own suite has its clients verify: bundles of the public-good and the
// staging instance, with entries of Rekor v1 and v2, signatures and attestations, each to be believed or, where the name ends
// in _fail, refused. See testdata/README.md.
func TestSigstoreConformance(t *testing.T) {
	const (
		beacon = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
		github = "https://token.actions.githubusercontent.com"
	)
	files := conformanceFiles(t)
	believed, refused, rekor2 := 0, 0, 0
	for name := range files {
		dir, file := path.Split(name)
		if file != "bundle.sigstore.json" {
			continue
		}
		read := func(name string, otherwise []byte) []byte {
			if data, ok := files[dir+name]; ok {
				return data
			}
			return otherwise
		}
		kind := path.Base(dir)
		bundle := files[name]
		if strings.Contains(string(bundle), `"0.0.2"`) {
			rekor2++
		}
		t.Run(kind, func(t *testing.T) {
			sum := sha256.Sum256(read("artifact", files["a.txt"]))
			digest := "sha256:" + hex.EncodeToString(sum[:])
			policy, err := conformancePolicy(read, cosign.Identity{
				ExactIssuer:  strings.TrimSpace(string(read("issuer", []byte(github)))),
				ExactSubject: strings.TrimSpace(string(read("identity", []byte(beacon)))),
			}, recorded(t, "public-good/trusted_root.json"))
			if err == nil {
				err = conformanceVerdict(bundle, digest, policy)
			}
			if strings.HasSuffix(kind, "_fail") {
				refused++
				if err == nil {
					t.Errorf("believed\n%s", read("README", nil))
				}
				t.Log(err)
				return
			}
			believed++
			if err != nil {
				t.Errorf("%v\n%s", err, read("README", nil))
			}
		})
	}
	if believed < 20 || refused < 40 || rekor2 < 25 {
		t.Errorf("%d to believe, %d to refuse, %d of Rekor v2: cases are missing", believed, refused, rekor2)
	}
}

func conformancePolicy(read func(string, []byte) []byte, id cosign.Identity, publicGood []byte) (*cosign.Policy, error) {
	if key := read("key.pub", nil); key != nil {
		return cosign.ByKeys(map[string][]byte{"key.pub": key})
	}
	return cosign.ByIdentities(read("trusted_root.json", publicGood), id)
}

// conformanceVerdict has a bundle judged as what it is, a signature or an attestation of whatever type.
func conformanceVerdict(bundle []byte, digest string, policy *cosign.Policy) error {
	found := &cosign.Signatures{Digest: digest, Bundles: []cosign.Attached{{Name: "conformance", Content: bundle}}}
	var content struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
	}
	if json.Unmarshal(bundle, &content) == nil && len(content.Envelope.Payload) > 0 {
		if err := json.Unmarshal(content.Envelope.Payload, &statement); err != nil {
			return err
		}
		_, err := cosign.CheckStatement(found, digest, policy, statement.PredicateType, func([]byte) error { return nil })
		return err
	}
	_, err := cosign.Check(found, digest, policy)
	return err
}

// conformanceFiles are the files of the suite by their paths below its directory of bundles.
func conformanceFiles(t *testing.T) map[string][]byte {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(recorded(t, "sigstore-conformance.tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "test/assets/bundle-verify/")] = data
	}
}
