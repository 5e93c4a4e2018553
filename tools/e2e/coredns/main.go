// Command coredns is the server that specs of the suite run from agnhost's
// image, with the plugins that their configurations name. The full server
// would add a dozen SDKs of clouds to the build.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"    // plugins register themselves
	_ "github.com/coredns/coredns/plugin/cache"   //
	_ "github.com/coredns/coredns/plugin/errors"  //
	_ "github.com/coredns/coredns/plugin/forward" //
	_ "github.com/coredns/coredns/plugin/health"  //
	_ "github.com/coredns/coredns/plugin/hosts"   //
	_ "github.com/coredns/coredns/plugin/log"     //
	_ "github.com/coredns/coredns/plugin/ready"   //
	_ "github.com/coredns/coredns/plugin/rewrite" //
)

func main() { coremain.Run() }
