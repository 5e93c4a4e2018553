package image

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Keys sign what the firmware starts.
type Keys struct {
	Certificate *x509.Certificate
	Signer      crypto.Signer
}

// LoadKeys reads a private key and its certificate, both PEM.
func LoadKeys(key, certificate string) (*Keys, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read the keys for Secure Boot from %s and %s: %w", certificate, key, err)
	}
	signer, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no RSA key: firmware knows no other kind", key)
	}
	return &Keys{pair.Leaf, signer}, nil
}

// Object identifiers of Microsoft's "Windows Authenticode Portable Executable Signature
// Format" and of PKCS #7 (RFC 2315).
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
)

// Sign returns a program with a signature that says it was made at a given time. The same
// arguments give the same bytes.
func (k *Keys) Sign(program []byte, at time.Time) ([]byte, error) {
	p, err := openProgram(program)
	if err != nil {
		return nil, err
	}
	signature, err := k.signature(p.digest(), at)
	if err != nil {
		return nil, err
	}
	return p.attach(signature), nil
}

// program is a PE file that is to be signed.
type program struct {
	data []byte
	file *pe.File
	head *pe.OptionalHeader64
	// checksumAt and directoryAt are the fields that a signature changes.
	checksumAt, directoryAt int
}

const (
	certificateTable  = 4 // its number among the data directories
	directorySize     = 8
	certificateAlign  = 8
	certificateHeader = 8
	revision2         = 0x0200
	typePKCS7         = 0x0002
)

func openProgram(data []byte) (*program, error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read the program to sign: %w", err)
	}
	head, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || head.NumberOfRvaAndSizes <= certificateTable {
		return nil, errors.New("the program to sign has no place for a signature")
	}
	if head.DataDirectory[certificateTable].Size != 0 {
		return nil, errors.New("the program is signed already")
	}
	if len(data)%certificateAlign != 0 {
		return nil, fmt.Errorf("the length of the program to sign, %d, is no multiple of %d", len(data), certificateAlign)
	}
	optionalAt := int(binary.LittleEndian.Uint32(data[0x3c:])) + 4 + binary.Size(f.FileHeader)
	const checksumField, directoriesField = 64, 112
	return &program{
		data: data, file: f, head: head,
		checksumAt: optionalAt + checksumField, directoryAt: optionalAt + directoriesField + certificateTable*directorySize,
	}, nil
}

// digest hashes the program without the fields that a signature changes: headers, sections
// in the order in which they are in the file, and what follows.
func (p *program) digest() []byte {
	h := sha256.New()
	h.Write(p.data[:p.checksumAt])
	h.Write(p.data[p.checksumAt+4 : p.directoryAt])
	h.Write(p.data[p.directoryAt+directorySize : p.head.SizeOfHeaders])
	sections := slices.Clone(p.file.Sections)
	slices.SortFunc(sections, func(a, b *pe.Section) int { return int(a.Offset) - int(b.Offset) })
	hashed := p.head.SizeOfHeaders
	for _, s := range sections {
		if s.Size > 0 {
			h.Write(p.data[s.Offset : s.Offset+s.Size])
			hashed += s.Size
		}
	}
	h.Write(p.data[hashed:])
	return h.Sum(nil)
}

// attach appends the signature and tells the header where it is.
func (p *program) attach(signature []byte) []byte {
	le := binary.LittleEndian
	entry := make([]byte, certificateHeader, certificateHeader+len(signature)+certificateAlign)
	le.PutUint32(entry, uint32(certificateHeader+len(signature)))
	le.PutUint16(entry[4:], revision2)
	le.PutUint16(entry[6:], typePKCS7)
	entry = pad(append(entry, signature...), certificateAlign)
	out := append(bytes.Clone(p.data), entry...)
	le.PutUint32(out[p.directoryAt:], uint32(len(p.data)))
	le.PutUint32(out[p.directoryAt+4:], uint32(len(entry)))
	return out
}

type indirectData struct {
	Data   imageAttribute
	Digest digestInfo
}

type imageAttribute struct {
	Type  asn1.ObjectIdentifier
	Value imageData
}

// imageData names the file that is signed, which nobody does any more: an empty name.
type imageData struct {
	Flags asn1.BitString
	File  asn1.RawValue
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue
}

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          contentInfo
	Certificates     asn1.RawValue
	Signers          []signerInfo `asn1:"set"`
}

type signerInfo struct {
	Version            int
	Issuer             issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	Attributes         asn1.RawValue
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          []byte
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue
}

func explicit(tag int, content []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: content}
}

// signature is the PKCS #7 structure that vouches for a digest.
func (k *Keys) signature(digest []byte, at time.Time) ([]byte, error) {
	sha := pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	empty := []byte{0x80, 0} // a string of no characters, of the first of two kinds
	link, err := asn1.Marshal(explicit(2, empty))
	if err != nil {
		return nil, err
	}
	content, err := asn1.Marshal(indirectData{
		Data:   imageAttribute{oidPEImageData, imageData{asn1.BitString{}, explicit(0, link)}},
		Digest: digestInfo{sha, digest},
	})
	if err != nil {
		return nil, err
	}
	attributes, err := signedAttributes(content, at)
	if err != nil {
		return nil, err
	}
	// What is signed is the set itself, what is written has another tag.
	set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: attributes})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(set)
	signed, err := k.Signer.Sign(nil, sum[:], crypto.SHA256) // PKCS #1 v1.5 needs no chance
	if err != nil {
		return nil, err
	}
	inner, err := asn1.Marshal(signedData{
		Version: 1, DigestAlgorithms: []pkix.AlgorithmIdentifier{sha},
		Content:      contentInfo{oidIndirectData, explicit(0, content)},
		Certificates: explicit(0, k.Certificate.Raw),
		Signers: []signerInfo{{
			Version: 1, Issuer: issuerAndSerial{asn1.RawValue{FullBytes: k.Certificate.RawIssuer}, k.Certificate.SerialNumber},
			DigestAlgorithm: sha, Attributes: explicit(0, attributes),
			SignatureAlgorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}, Signature: signed,
		}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, explicit(0, inner)})
}

// signedAttributes are what the signature covers, in the order of their encodings, as DER
// wants the members of a set.
func signedAttributes(content []byte, at time.Time) ([]byte, error) {
	var inside asn1.RawValue // the digest is of the content without its tag and length
	if _, err := asn1.Unmarshal(content, &inside); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inside.Bytes)
	var encoded [][]byte
	for _, a := range []struct {
		kind  asn1.ObjectIdentifier
		value any
	}{{oidContentType, oidIndirectData}, {oidSigningTime, at.UTC()}, {oidMessageDigest, sum[:]}} {
		value, err := asn1.Marshal(a.value)
		if err != nil {
			return nil, err
		}
		one, err := asn1.Marshal(attribute{a.kind, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: value}})
		if err != nil {
			return nil, err
		}
		encoded = append(encoded, one)
	}
	slices.SortFunc(encoded, bytes.Compare)
	return bytes.Join(encoded, nil), nil
}
