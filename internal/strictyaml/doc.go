// Package strictyaml decodes YAML that people write, and says exactly what is
// wrong with it.
//
// [Decode] refuses unknown fields, duplicate keys, wrong types, several
// documents, anchors and oversized input. Each problem is an [Error] with
// file, line, field, what is wrong and what to do. The returned [Document]
// finds the line of any field, so that later validation can point at it too.
//
// The package must not know any kind.
package strictyaml
