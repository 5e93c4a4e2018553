// Package paths says where the control plane keeps its files.
//
// [Paths] is a plain value made of two directories, so that any process of the
// node can name a file without asking the control plane. The package must not
// know how the files are made and never touches the disk.
//
// Certificates are single PEM files that hold the private key and the
// certificate together: replacing one is a single rename, so no reader ever
// sees a certificate beside the key of another. The same path is therefore
// given where software asks for a certificate file and for a key file.
package paths
