package main

// #include <nss.h>
// #include <stdlib.h>
import "C"

import "unsafe"

// lookUpUsersInFiles keeps the C library to /etc/passwd and /etc/group. /etc/nsswitch.conf of an ordinary
// machine names modules beside them ("passwd: files systemd"), which the C library of a static binary
// would load from the machine, and crash, for they want that machine's own.
func lookUpUsersInFiles() {
	files := C.CString("files")
	defer C.free(unsafe.Pointer(files))
	for _, database := range []string{"passwd", "group", "initgroups", "shadow", "gshadow"} {
		name := C.CString(database)
		C.__nss_configure_lookup(name, files) // fails for names that it does not know alone
		C.free(unsafe.Pointer(name))
	}
}
