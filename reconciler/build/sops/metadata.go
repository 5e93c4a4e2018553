package sops

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// metadataKey is the entry that SOPS adds to a file.
const metadataKey = "sops"

// metadata is the entry that SOPS adds to a file.
type metadata struct {
	keyGroup
	ShamirThreshold         int        `json:"shamir_threshold"`
	KeyGroups               []keyGroup `json:"key_groups"`
	LastModified            string     `json:"lastmodified"`
	MAC                     string     `json:"mac"`
	UnencryptedSuffix       string     `json:"unencrypted_suffix"`
	EncryptedSuffix         string     `json:"encrypted_suffix"`
	UnencryptedRegex        string     `json:"unencrypted_regex"`
	EncryptedRegex          string     `json:"encrypted_regex"`
	UnencryptedCommentRegex string     `json:"unencrypted_comment_regex"`
	EncryptedCommentRegex   string     `json:"encrypted_comment_regex"`
	MACOnlyEncrypted        bool       `json:"mac_only_encrypted"`

	modified time.Time
}

// keyGroup is the recipients of one share of the data key, or of all of it.
// Those in a cloud are counted, to say what a file needs.
type keyGroup struct {
	Age    []ageKey          `json:"age"`
	PGP    []pgpKey          `json:"pgp"`
	AWS    []json.RawMessage `json:"kms"`
	GCP    []json.RawMessage `json:"gcp_kms"`
	Azure  []json.RawMessage `json:"azure_kv"`
	Vault  []json.RawMessage `json:"hc_vault"`
	Huawei []json.RawMessage `json:"hckms"`
}

type ageKey struct {
	Recipient string `json:"recipient"`
	Enc       string `json:"enc"`
}

type pgpKey struct {
	Fingerprint string `json:"fp"`
	Enc         string `json:"enc"`
}

// parseMetadata reads the entry of SOPS.
func parseMetadata(entry branch) (*metadata, error) {
	// Files of flat formats have only strings.
	for i, it := range entry {
		text, isText := it.value.(string)
		if !isText {
			continue
		}
		var err error
		switch it.key {
		case "shamir_threshold":
			entry[i].value, err = strconv.Atoi(text)
		case "mac_only_encrypted":
			entry[i].value, err = strconv.ParseBool(text)
		}
		if err != nil {
			return nil, fmt.Errorf("is malformed: %s is neither a number nor true or false", it.key)
		}
	}
	raw, err := json.Marshal(plainValue(entry))
	if err != nil {
		return nil, fmt.Errorf("is malformed: %w", err)
	}
	m := &metadata{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("is malformed: %w", err)
	}
	if m.modified, err = time.Parse(time.RFC3339, m.LastModified); err != nil {
		return nil, errors.New("is malformed: lastmodified is not a time")
	}
	if m.MAC == "" {
		return nil, errors.New("has no authentication code (mac)")
	}
	return m, nil
}

// groups returns the key groups; one means no shares.
func (m *metadata) groups() []keyGroup {
	if len(m.KeyGroups) > 0 {
		return m.KeyGroups
	}
	return []keyGroup{m.keyGroup}
}

// plainValue returns content as encoding/json wants it, without comments.
func plainValue(value any) any {
	switch v := value.(type) {
	case branch:
		out := map[string]any{}
		for _, it := range v {
			if it.comment == nil {
				out[it.key] = plainValue(it.value)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			if _, isComment := e.(comment); !isComment {
				out = append(out, plainValue(e))
			}
		}
		return out
	case time.Time:
		return v.Format(time.RFC3339)
	}
	return value
}

// topLevelMetadata takes the sops entry out of each document and returns that of
// the first; SOPS writes the same into all of them.
func topLevelMetadata(documents []branch) ([]branch, branch, error) {
	var entry branch
	out := make([]branch, 0, len(documents))
	for i, document := range documents {
		value, found := document.get(metadataKey)
		if i == 0 {
			var ok bool
			if entry, ok = value.(branch); !found || !ok {
				return nil, nil, errors.New("it has no sops entry")
			}
		}
		out = append(out, document.without(metadataKey))
	}
	if len(out) == 0 {
		return nil, nil, errors.New("it is empty")
	}
	return out, entry, nil
}
