// Package policy holds the configuration files by which the API server decides
// who may come in unnamed, what pods may do and what is written to the audit
// log.
//
// Each function returns a file's content; the audit policy is a plain YAML file
// beside the code, so that a reviewer can read it as such. The package must not
// know where the files are put or who reads them.
package policy
