package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

const (
	dataKeySize = 32
	tagSize     = 16
)

var encryptedValue = regexp.MustCompile(`^ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z]+)\]$`)

// errNotEncrypted never shows the value, which may be a secret that somebody
// forgot to encrypt.
var errNotEncrypted = errors.New("is not an encrypted value, and the rules of the file say that it must be")

// decryptValue opens a value. additional is what it is bound to: the path or, for
// the authentication code of the file, the time of the last change.
func decryptValue(block cipher.Block, sealed, additional string) (any, error) {
	if sealed == "" {
		return "", nil // SOPS leaves the empty string as it is
	}
	parts := encryptedValue.FindStringSubmatch(sealed)
	if parts == nil {
		return nil, errNotEncrypted
	}
	var raw [3][]byte
	for i := range raw {
		var err error
		if raw[i], err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil {
			return nil, errors.New("is an encrypted value with broken base64")
		}
	}
	data, nonce, tag := raw[0], raw[1], raw[2]
	if len(tag) != tagSize {
		return nil, fmt.Errorf("is an encrypted value with a tag of %d bytes instead of %d", len(tag), tagSize)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(nonce))
	if err != nil {
		return nil, errors.New("is an encrypted value without a nonce")
	}
	plain, err := gcm.Open(nil, nonce, append(data, tag...), []byte(additional))
	if err != nil {
		return nil, errors.New("does not match its authentication tag: it was changed, moved from another place, or encrypted with another data key")
	}
	return typed(plain, parts[4])
}

// typed gives a decrypted value the type it had.
func typed(plain []byte, datatype string) (any, error) {
	var value any
	var err error
	switch datatype {
	case "str", "bytes":
		return string(plain), nil
	case "comment":
		return comment{text: string(plain)}, nil
	case "int":
		value, err = strconv.Atoi(string(plain))
	case "float":
		value, err = strconv.ParseFloat(string(plain), 64)
	case "bool":
		value, err = strconv.ParseBool(string(plain))
	case "time":
		var t time.Time
		err = t.UnmarshalText(plain)
		value = t
	default:
		return nil, fmt.Errorf("is of the type %q, which SOPS did not have when this was written", datatype)
	}
	if err != nil {
		return nil, fmt.Errorf("is not of the type %q that it claims", datatype)
	}
	return value, nil
}

func newBlock(dataKey []byte) (cipher.Block, error) {
	if len(dataKey) != dataKeySize {
		return nil, fmt.Errorf("the data key has %d bytes instead of %d", len(dataKey), dataKeySize)
	}
	return aes.NewCipher(dataKey)
}
