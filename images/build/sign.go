package build

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

const (
	// payloadType and signatureAnnotation are cosign's, for the manifest behind the tag sha256-<hex>.sig.
	payloadType         = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	signatureSuffix     = ".sig"
)

// Signed is an image of a layout with its signature.
type Signed struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	// New is false where the key's signature was there already.
	New bool `json:"new"`
}

// ReadKey reads a private key, PEM, as cosign or openssl make it. password is asked for one that is encrypted.
func ReadKey(file string, password func() ([]byte, error)) (signature.SignerVerifier, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) { return password() })
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", file, err)
	}
	signer, err := signature.LoadSignerVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", file, err)
	}
	return signer, nil
}

// Sign attaches signatures to images of an OCI layout, in the form of cosign: to those with the given names, or to all. An
// image that the key has signed is left alone, so that signing again changes nothing.
func Sign(layoutDir string, signer signature.SignerVerifier, names []string) ([]Signed, error) {
	w, err := openWriter(layoutDir)
	if err != nil {
		return nil, err
	}
	var out []Signed
	for _, d := range slices.Clone(w.index.Manifests) {
		image := d.Annotations[ocispec.AnnotationRefName]
		if image == "" || isSignature(image) || len(names) > 0 && !slices.Contains(names, image) {
			continue
		}
		added, err := w.sign(image, d.Digest, signer)
		if err != nil {
			return out, fmt.Errorf("sign image %s: %w", image, err)
		}
		out = append(out, Signed{Name: image, Digest: d.Digest.String(), New: added})
	}
	for _, n := range names {
		if !slices.ContainsFunc(out, func(s Signed) bool { return s.Name == n }) {
			return out, fmt.Errorf("%s has no image %s: see `bothy image ls %s`", layoutDir, n, layoutDir)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no image to sign", layoutDir)
	}
	return out, nil
}

// attachment is a name by which something is attached to a digest.
var attachment = regexp.MustCompile(`:(sha256-[0-9a-f]{64})(\.[a-z]+)?$`)

// isSignature tells what is attached to an image from images.
func isSignature(image string) bool { return attachment.MatchString(image) }

// sign adds a signature of a digest behind its tag.
func (w *writer) sign(image string, digest v1.Hash, signer signature.SignerVerifier) (added bool, err error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return false, err
	}
	repository := image[:len(image)-len(tagOf(image))]
	tag := repository + ":" + digest.Algorithm + "-" + digest.Hex + signatureSuffix
	signatures := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	if i := w.find(tag); i >= 0 {
		if signatures, err = gcrlayout.Path(w.dir).Image(w.index.Manifests[i].Digest); err != nil {
			return false, fmt.Errorf("read the signatures that are there: %w", err)
		}
	}
	content, err := payload.Cosign{Image: ref.Context().Digest(digest.String())}.MarshalJSON()
	if err != nil {
		return false, err
	}
	if there, err := isBy(signatures, signer, content); there || err != nil {
		return false, err
	}
	made, err := signer.SignMessage(bytes.NewReader(content))
	if err != nil {
		return false, err
	}
	signatures, err = mutate.Append(signatures, mutate.Addendum{
		Layer: static.NewLayer(content, payloadType), MediaType: payloadType,
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(made)},
	})
	if err != nil {
		return false, err
	}
	return w.put(tag, signatures)
}

// tagOf is the tag or digest at the end of an image's name, with what is before it.
func tagOf(image string) string {
	if i := strings.IndexByte(image, '@'); i >= 0 {
		return image[i:]
	}
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i:]
	}
	return ""
}

// isBy reports whether one of the signatures is the key's, of this content.
func isBy(signatures v1.Image, signer signature.SignerVerifier, content []byte) (bool, error) {
	m, err := signatures.Manifest()
	if err != nil {
		return false, err
	}
	want, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return false, err
	}
	for _, l := range m.Layers {
		made, err := base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation])
		if err != nil || l.Digest != want {
			continue // somebody else's
		}
		if signer.VerifySignature(bytes.NewReader(made), bytes.NewReader(content)) == nil {
			return true, nil
		}
	}
	return false, nil
}

// ErrNoPassword says that a key is encrypted, and nobody gave the password.
var ErrNoPassword = errors.New("the key is encrypted: set COSIGN_PASSWORD to its password")
