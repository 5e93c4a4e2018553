package reconciler

import (
	"context"
	"fmt"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/apply"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/history"
)

// site is the built directory of a site.
type site struct {
	objects []*unstructured.Unstructured
	options apply.Options
	// own is the site's own Kustomization, if its directory has one; skipped
	// counts what bothy serves itself and therefore leaves out.
	own     *kustomizev1.Kustomization
	skipped int
	// wantsFlux says that there are objects of the Flux API among them, so that
	// its definitions have to be there first.
	wantsFlux bool
}

// buildError says that the objects of a commit cannot be made. It is reported
// already.
type buildError struct{ error }

// build makes the objects of the commit, unless nothing that they are made of
// has changed since the commit before.
func (j *job) build(ctx context.Context) error {
	began := time.Now()
	var next *site
	err := j.connected(ctx, func(ctx context.Context) (err error) {
		next, err = j.buildSite(ctx, j.snapshot)
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		j.report(Event{Reason: "BuildFailed", Commit: j.snapshot.Commit, Warning: true, Message: fmt.Sprintf("commit %.12s cannot be built: %v", j.snapshot.Commit, err)}, func(s *Status) {
			s.degrade(reasonBuild, "build failed: "+err.Error())
		})
		j.finish(j.snapshot, history.Degraded, err.Error())
		j.ready()
		return &buildError{err}
	}
	j.site = next
	j.snapshot.way.add(stepBuild, began)
	if next.skipped == 0 {
		j.board.update(func(s *Status) { s.FluxComponents = 0 })
	} else {
		j.report(Event{Reason: "FluxComponentsSkipped", Commit: j.snapshot.Commit, Message: fmt.Sprintf("%s of Flux's own components are left out: bothy serves the Flux API itself", count(next.skipped))}, func(s *Status) { s.FluxComponents = next.skipped })
	}
	return nil
}

func (w *workloads) buildSite(ctx context.Context, s *Snapshot) (*site, error) {
	next := &site{options: apply.Options{Prune: true, Guard: true, Wait: true}}
	options := build.Options{Dir: s.Path, Skip: build.FluxComponents}
	keys, err := w.decryptionKeys()
	if err != nil {
		return nil, err
	}
	if keys != nil {
		options.Decrypt = keys
	}
	if next.own, err = ownKustomization(s.Files, s.Path); err != nil {
		return nil, err
	}
	if next.own != nil {
		if err := w.honour(ctx, next.own, &options, &next.options); err != nil {
			return nil, err
		}
	}
	result, err := build.Build(ctx, s.Files, options)
	if err != nil {
		return nil, err
	}
	next.objects, next.wantsFlux = result.Objects, anyFlux(result.Objects)
	for _, skipped := range result.Skipped {
		w.log.Debug("left out", "kind", skipped.Object.GetKind(), "name", skipped.Object.GetName(), "reason", skipped.Reason)
	}
	next.skipped = len(result.Skipped)
	return next, nil
}

func anyFlux(objects []*unstructured.Unstructured) bool {
	for _, o := range objects {
		if strings.HasSuffix(o.GroupVersionKind().Group, ".toolkit.fluxcd.io") {
			return true
		}
	}
	return false
}
