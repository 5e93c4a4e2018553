// Package imagetest makes images and layouts for the tests of the wing.
package imagetest
