// Package verify judges one image by a policy.
//
// [Judge] takes the name and the digests of an image, the policy, and what is
// attached to the digests. It asks nobody and reads nothing else: the verdict is
// the same with and without a network, today and in a year. Keys need no clock;
// identities are judged at the time that a log or a time-stamp authority states.
//
// A verdict names every rule and every authority with what it found, so that an
// operator sees at once which signature is missing.
//
// The package must not know containerd, or how signatures got here.
package verify
