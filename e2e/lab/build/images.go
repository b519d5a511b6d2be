package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
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

// image says what an image holds.
type image struct {
	module string // folder of its Go module in the checkout
	pkg    string // main package, whose program gets the image's name and is its entry point
	// beside are more main packages, whose programs get the names of their folders.
	beside []string
	files  func() ([]tarEntry, error) // more; nil for none
}

var images = map[string]image{
	"controller": {pkg: "./controller"},
	"speaker":    {pkg: "./speaker", beside: []string{"./bgpd"}, files: iptablesFiles},
	"coredns":    {module: "e2e/lab/images/coredns", pkg: "."},
	"echo":       {pkg: "./e2e/lab/images/echo"},
	"pause":      {pkg: "./e2e/lab/images/pause"},
}

// tarEntry is a file of an image, or a symbolic link if target is set.
type tarEntry struct {
	name    string // without the leading slash
	target  string
	content []byte
}

// ImageName is the reference that a pod in the lab uses.
func ImageName(image string) string { return Registry + "/" + image + ":" + Tag }

// Images builds the container images from the checkout as it is now and returns their archives, in the format of
// `docker save`.
func Images(ctx context.Context) ([]string, error) {
	cache, root, err := dirs()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "images")
	var archives []string
	err = locked(dir, func() error {
		for name, i := range images {
			archive, err := i.build(ctx, root, dir, name)
			if err != nil {
				return fmt.Errorf("image %s: %w", name, err)
			}
			archives = append(archives, archive)
		}
		return nil
	})
	return archives, err
}

// build returns an archive named by its content, so that a running lab's archive is never rewritten.
func (i image) build(ctx context.Context, root, dir, name string) (string, error) {
	var entries []tarEntry
	for _, pkg := range append([]string{i.pkg}, i.beside...) {
		program := name
		if pkg != i.pkg {
			program = filepath.Base(pkg)
		}
		file := filepath.Join(dir, program)
		if err := goBuild(ctx, filepath.Join(root, i.module), "-ldflags", "-s -w", "-o", file, pkg); err != nil {
			return "", err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		entries = append(entries, tarEntry{name: program, content: content})
	}
	if i.files != nil {
		more, err := i.files()
		if err != nil {
			return "", err
		}
		entries = append(entries, more...)
	}
	layer, err := tarOf(entries)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(layer)
	archive := filepath.Join(dir, fmt.Sprintf("%s-%x.tar", name, sum[:6]))
	if _, err := os.Stat(archive); err == nil {
		return archive, nil
	}
	slog.Debug("writing image", "image", name)
	old, _ := filepath.Glob(filepath.Join(dir, name+"-*.tar"))
	for _, f := range old {
		os.Remove(f) // an import that has it open keeps its content
	}
	return archive, writeImage(archive, name, layer)
}

func tarOf(entries []tarEntry) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.content))}
		if e.target != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.target
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return layer.Bytes(), err
}

func writeImage(archive, image string, layer []byte) error {
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = v1.Config{Entrypoint: []string{"/" + image}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	ref, err := name.NewTag(ImageName(image))
	if err != nil {
		return err
	}
	return tarball.WriteToFile(archive, ref, img)
}
