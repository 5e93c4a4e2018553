package sops

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"
)

// maxSize bounds an encrypted file, as Flux does.
const maxSize = 5 << 20

// onlyEncrypted begins the authentication code of files in which it covers the
// encrypted values alone, so that one is never valid as the other: the SHA-256
// of "sops".
var onlyEncrypted = []byte{
	0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
	0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
}

// store turns files of a format into content and back.
type store interface {
	load(data []byte) ([]branch, error)
	emit(documents []branch) ([]byte, error)
	// takeMetadata returns the documents without SOPS's entry, and that entry.
	takeMetadata(documents []branch) ([]branch, branch, error)
}

func storeOf(format Format) store {
	switch format {
	case YAML:
		return yamlStore{}
	case JSON:
		return jsonStore{}
	case Dotenv:
		return dotenvStore{}
	case INI:
		return iniStore{}
	}
	return binaryStore{}
}

// Decrypt returns the plain content of an encrypted file. What comes out is
// what the sops program would write.
func (k *Keys) Decrypt(data []byte, format Format) ([]byte, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("it is larger than %d MiB", maxSize>>20)
	}
	s := storeOf(format)
	documents, err := s.load(data)
	if err != nil {
		return nil, fmt.Errorf("it is not %s: %w", format, err)
	}
	documents, entry, err := s.takeMetadata(documents)
	if err != nil {
		return nil, err
	}
	m, err := parseMetadata(entry)
	if err != nil {
		return nil, fmt.Errorf("its sops entry %w", err)
	}
	if err := k.open(documents, m); err != nil {
		return nil, err
	}
	out, err := s.emit(documents)
	if err != nil {
		return nil, fmt.Errorf("its plain content cannot be written as %s: %w", format, err)
	}
	return out, nil
}

// open decrypts the documents in place and checks that they are what was
// encrypted.
func (k *Keys) open(documents []branch, m *metadata) error {
	r, err := newRules(m)
	if err != nil {
		return fmt.Errorf("its sops entry %w", err)
	}
	dataKey, err := k.dataKey(m)
	if err != nil {
		return err
	}
	block, err := newBlock(dataKey)
	if err != nil {
		return err
	}
	o := &opener{rules: r, block: block, all: !m.MACOnlyEncrypted, sum: sha512.New()}
	if m.MACOnlyEncrypted {
		o.sum.Write(onlyEncrypted)
	}
	for _, document := range documents {
		if err := o.branch(document, place{}); err != nil {
			return err
		}
	}
	want, err := decryptValue(block, m.MAC, m.modified.Format(time.RFC3339))
	if err != nil {
		return fmt.Errorf("its authentication code (mac) %w", err)
	}
	got := fmt.Sprintf("%X", o.sum.Sum(nil))
	if text, _ := want.(string); !hmac.Equal([]byte(text), []byte(got)) {
		return errors.New("it was changed after it was encrypted: its authentication code (mac) does not match its content; check the change and encrypt it again with sops")
	}
	return nil
}

// opener decrypts values and sums up what the authentication code covers.
type opener struct {
	rules *rules
	block cipher.Block
	all   bool // the code covers values in the clear too
	sum   hash.Hash
}

// branch decrypts a mapping in place.
func (o *opener) branch(b branch, at place) error {
	at.comments = append(at.comments[:len(at.comments):len(at.comments)], nil)
	level := &at.comments[len(at.comments)-1]
	for i := range b {
		if c := b[i].comment; c != nil {
			*level = append(*level, c.text)
			b[i].comment = o.comment(*c, at)
			continue
		}
		below := place{path: append(at.path[:len(at.path):len(at.path)], b[i].key), comments: at.comments}
		value, err := o.value(b[i].value, below)
		if err != nil {
			return err
		}
		b[i].value, *level = value, nil
	}
	return nil
}

// list decrypts a list in place.
func (o *opener) list(l []any, at place) error {
	at.comments = append(at.comments[:len(at.comments):len(at.comments)], nil)
	level := &at.comments[len(at.comments)-1]
	for i := range l {
		if c, ok := l[i].(comment); ok {
			*level = append(*level, c.text)
			l[i] = *o.comment(c, at)
			continue
		}
		value, err := o.value(l[i], at)
		if err != nil {
			return err
		}
		l[i], *level = value, nil
	}
	return nil
}

func (o *opener) value(value any, at place) (any, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case branch:
		return v, o.branch(v, at)
	case []any:
		return v, o.list(v, at)
	}
	encrypted := o.rules.encrypted(at, false)
	if encrypted {
		sealed, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("its value %s %w", dotted(at.path), errNotEncrypted)
		}
		var err error
		if value, err = decryptValue(o.block, sealed, additional(at.path)); err != nil {
			return nil, fmt.Errorf("its value %s %w", dotted(at.path), err)
		}
	}
	if _, isComment := value.(comment); isComment || (!encrypted && !o.all) {
		return value, nil
	}
	raw, err := bytesOf(value)
	if err != nil {
		return nil, fmt.Errorf("its value %s: %w", dotted(at.path), err)
	}
	o.sum.Write(raw)
	return value, nil
}

// comment decrypts a comment. One that cannot be decrypted is taken for one that
// never was encrypted: no code covers it, and nothing is made of it.
func (o *opener) comment(c comment, at place) *comment {
	if !o.rules.encrypted(at, true) {
		return &c
	}
	value, err := decryptValue(o.block, c.text, additional(at.path))
	if err != nil {
		return &c
	}
	switch v := value.(type) {
	case comment:
		return &v // SOPS forgets whether an encrypted comment stood behind a value
	case string:
		return &comment{text: v, inline: c.inline}
	}
	return &c
}

// additional is what binds a value to its path.
func additional(path []string) string { return strings.Join(path, ":") + ":" }

func dotted(path []string) string { return strings.Join(path, ".") }
