package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountRoot mounts layers, the uppermost first, read-only at path. The launcher's skeleton is the lowest: it has the places at which a
// sandbox mounts what is its own.
func mountRoot(path string, layers []string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make the image's root: %w", err)
	}
	if mounted(path) {
		return nil
	}
	// By descriptors, which are short: all layers have to fit into one page of options.
	short := make([]string, len(layers))
	for i, layer := range layers {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("mount the image: open layer %s: %w", layer, err)
		}
		defer func() { _ = unix.Close(fd) }()
		short[i] = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("gleaner-image", path, "overlay", flags, "lowerdir="+strings.Join(short, ":")); err != nil {
		return fmt.Errorf("mount the image's %d layers at %s: %w", len(layers), path, err)
	}
	return nil
}

func unmountRoot(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return os.RemoveAll(path)
}

// mounted says whether an overlay lies at path.
func mounted(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil || st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return false
	}
	var here, above unix.Stat_t
	return unix.Stat(path, &here) == nil && unix.Stat(path+"/..", &above) == nil && here.Dev != above.Dev
}
