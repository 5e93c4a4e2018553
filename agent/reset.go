package agent

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/reset"
)

var errNotAppliance = errors.New("this machine is not bothy's own: `bothy down --purge` removes a node of `bothy up` with all it has")

// serveReset has the machine begin anew.
func (h *hall) serveReset(w http.ResponseWriter, _ *http.Request) {
	if !h.env.Appliance {
		http.Error(w, errNotAppliance.Error(), http.StatusConflict)
		return
	}
	if err := reset.Request(boot.StateDir); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h.log.Warn("somebody wants this machine to begin anew")
	if err := unix.Kill(1, unix.SIGTERM); err != nil {
		http.Error(w, "the machine begins anew when it is started the next time, but does not start by itself: "+err.Error(), http.StatusInternalServerError)
	}
}

// Reset has a machine of bothy's own forget everything, and start again.
func (c *Client) Reset(ctx context.Context) error {
	body, err := call(ctx, c.socket, http.MethodPost, "/v1/reset", nil)
	if err != nil {
		return err
	}
	return body.Close()
}
