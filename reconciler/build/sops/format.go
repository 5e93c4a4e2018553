package sops

import (
	"bytes"
	"strings"
)

// Format is how a file is structured.
type Format int

// The formats that SOPS knows.
const (
	// Binary is any content as one value, in a JSON envelope when encrypted.
	Binary Format = iota
	YAML
	JSON
	Dotenv
	INI
)

func (f Format) String() string {
	return [...]string{"binary", "YAML", "JSON", "dotenv", "INI"}[f]
}

// dockerConfig is the entry of a Secret with credentials of a registry.
const dockerConfig = ".dockerconfigjson"

// FormatOf returns the format of a file or of a Secret's entry by its name.
func FormatOf(name string) Format {
	for _, known := range []struct {
		suffix string
		format Format
	}{{".yaml", YAML}, {".yml", YAML}, {".json", JSON}, {dockerConfig, JSON}, {".env", Dotenv}, {".ini", INI}} {
		if strings.HasSuffix(name, known.suffix) {
			return known.format
		}
	}
	return Binary
}

// markers are in every encrypted file of a format, and hardly in another.
var markers = map[Format][]string{
	Binary: {`"mac": "ENC[`, `"mac":"ENC[`},
	JSON:   {`"mac": "ENC[`, `"mac":"ENC[`},
	YAML:   {"mac: ENC[", `mac: "ENC[`, `"mac": "ENC[`, `"mac":"ENC[`},
	Dotenv: {"sops_mac=ENC["},
	INI:    {"[sops]"},
}

// Encrypted reports whether data looks like an encrypted file of the format. It
// is cheap and may be wrong about files that quote an encrypted one.
func Encrypted(data []byte, format Format) bool {
	for _, marker := range markers[format] {
		if bytes.Contains(data, []byte(marker)) {
			return true
		}
	}
	return false
}

// Detect returns the format of an encrypted file, false if it looks like none.
// JSON stands for Binary too.
func Detect(data []byte) (Format, bool) {
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) > 0 && start[0] == '{' {
		return JSON, Encrypted(data, JSON)
	}
	for _, format := range []Format{YAML, Dotenv, INI} {
		if Encrypted(data, format) {
			return format, true
		}
	}
	return Binary, false
}
