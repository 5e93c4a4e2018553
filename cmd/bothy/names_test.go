package main

import (
	"errors"
	"os/user"
	"testing"
)

func TestUsersAreThoseOfTheFiles(t *testing.T) {
	lookUpUsersInFiles()
	if u, err := user.Lookup("root"); err != nil || u.Uid != "0" {
		t.Errorf("root: %+v, %v", u, err)
	}
	var unknown user.UnknownUserError
	if _, err := user.Lookup("no-such-user"); !errors.As(err, &unknown) {
		t.Errorf("a user that nobody has: %v", err)
	}
}
