// Package listen finds out, before a server is built, whether it will get its
// address, and says who has it otherwise.
package listen
