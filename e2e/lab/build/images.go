package build

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Registry and Tag name the images that the lab makes; nothing is ever pulled from there.
const (
	Registry = "lab.steelyard.io"
	Tag      = "lab"
)

// images maps an image's name to the main package whose program it holds.
var images = map[string]string{
	"controller": "./controller",
	"speaker":    "./speaker",
	"echo":       "./e2e/lab/images/echo",
	"pause":      "./e2e/lab/images/pause",
}

// ImageName is the reference that a pod in the lab uses.
func ImageName(image string) string { return Registry + "/" + image + ":" + Tag }

// Images builds the container images from the checkout as it is now and returns their archives, in the format of
// `docker save`.
func Images(ctx context.Context) ([]string, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "images")
	var archives []string
	err = locked(dir, func() error {
		for image, pkg := range images {
			archive, err := buildImage(ctx, root, dir, image, pkg)
			if err != nil {
				return fmt.Errorf("image %s: %w", image, err)
			}
			archives = append(archives, archive)
		}
		return nil
	})
	return archives, err
}

// buildImage returns an archive named by its content, so that a running lab's archive is never rewritten.
func buildImage(ctx context.Context, root, dir, image, pkg string) (string, error) {
	program := filepath.Join(dir, image)
	if err := goBuild(ctx, root, "-ldflags", "-s -w", "-o", program, pkg); err != nil {
		return "", err
	}
	key, err := fingerprint(program)
	if err != nil {
		return "", err
	}
	archive := filepath.Join(dir, image+"-"+key+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	slog.Debug("writing image", "image", image)
	old, _ := filepath.Glob(filepath.Join(dir, image+"-*.tar"))
	for _, f := range old {
		os.Remove(f) // an import that has it open keeps its content
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: image, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return "", err
	}
	if _, err := w.Write(content); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		return "", err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = v1.Config{Entrypoint: []string{"/" + image}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	ref, err := name.NewTag(ImageName(image))
	if err != nil {
		return "", err
	}
	return archive, tarball.WriteToFile(archive, ref, img)
}
