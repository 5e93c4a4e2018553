package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/flags"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// settingsCheck decodes a site's Cluster and Machines as the agent does before
// it accepts a commit.
func settingsCheck(_ context.Context, files fs.FS, site string) error {
	name := path.Join(site, "cluster.yaml")
	data, err := fs.ReadFile(files, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		cluster, err := v1alpha1.DecodeCluster(name, data)
		if err != nil {
			return err
		}
		if err := flags.Validate(cluster); err != nil {
			return err
		}
	}
	machines, err := fs.Glob(files, path.Join(site, "machines", "*.y*ml"))
	if err != nil {
		return err
	}
	all := make([]v1alpha1.MachineFile, 0, len(machines))
	for _, name := range machines {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		all = append(all, v1alpha1.MachineFile{Path: name, Data: data})
	}
	_, err = v1alpha1.DecodeMachines(all)
	return errors.Join(err, policyCheck(files))
}

// policyCheck reads the image policy as the agent does.
func policyCheck(files fs.FS) error {
	found, err := policy.Read(files)
	if err == nil && found != nil {
		_, err = policy.Compile(found)
	}
	return err
}

// buildCheck builds the site's directory. What is encrypted cannot be opened
// here and is taken as it is.
func buildCheck(ctx context.Context, files fs.FS, site string) error {
	_, err := build.Build(ctx, files, build.Options{Dir: site, Skip: build.FluxComponents, Decrypt: sealed{}})
	return err
}

// sealed stands for keys that are not here: what is encrypted stays so, and
// only loses the mark that it is.
type sealed struct{}

// Decrypt implements build.Decryptor.
func (sealed) Decrypt(data []byte, format sops.Format) ([]byte, error) {
	if format != sops.YAML && format != sops.JSON {
		return data, nil
	}
	var content map[string]any
	if err := yaml.Unmarshal(data, &content); err != nil {
		return nil, err
	}
	delete(content, "sops")
	return json.Marshal(content) // which is YAML too
}
