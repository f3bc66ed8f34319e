package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// archive is a user's file, opened as the user.
type archive struct {
	file     *os.File
	uid      uint32
	identity string // changes with its contents
}

func (a *archive) close() { _ = a.file.Close() }

// openAs opens a file with a user's ids and no others: what he cannot read is not read for him. The thread that had them ends when it
// cannot be given root's back.
func openAs(name string, uid, gid uint32, groups []uint32) (*archive, error) {
	type result struct {
		a   *archive
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := -1, become(uid, gid, groups)
		if err == nil {
			fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		}
		if become(0, 0, nil) == nil {
			runtime.UnlockOSThread()
		}
		if err != nil {
			done <- result{nil, fmt.Errorf("open it as uid %d on this node: %w", uid, err)}
			return
		}
		a, err := newArchive(os.NewFile(uintptr(fd), name), uid)
		done <- result{a, err}
	}()
	r := <-done
	return r.a, r.err
}

// become changes the ids by which this thread alone opens files. With fsuid 0 go the capabilities that pass over permissions.
func become(uid, gid uint32, groups []uint32) error {
	if uid != 0 {
		if err := setgroups(groups); err != nil {
			return fmt.Errorf("take the user's groups: %w", err)
		}
	}
	if err := errors.Join(unix.Setfsgid(int(gid)), unix.Setfsuid(int(uid))); err != nil {
		return fmt.Errorf("take the user's ids: %w", err)
	}
	if uid == 0 {
		return setgroups(nil)
	}
	if got, _ := unix.SetfsuidRetUid(-1); got != int(uid) {
		return fmt.Errorf("take the user's ids: the thread has uid %d", got)
	}
	return nil
}

// setgroups is this thread's alone, unlike that of package syscall.
func setgroups(ids []uint32) error {
	var first unsafe.Pointer
	if len(ids) > 0 {
		first = unsafe.Pointer(&ids[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(ids)), uintptr(first), 0); errno != 0 {
		return errno
	}
	return nil
}

func newArchive(f *os.File, uid uint32) (*archive, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = f.Close()
		return nil, errors.New("no regular file: an archive is an OCI archive, one of podman save, or a root file system's tarball")
	}
	return &archive{file: f, uid: uid, identity: fmt.Sprintf("archive %d %d %d %d %d", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())}, nil
}

// kind of an archive.
type kind int

const (
	tarball kind = iota // a root file system
	saved               // by Podman or Docker, or OCI
)

// copyWithoutNames unpacks gzip, says what the archive is, and takes the names out of it: it must not stand for what others ask for.
func copyWithoutNames(to io.Writer, from io.Reader, most int64) (kind, error) {
	in := bufio.NewReaderSize(from, 1<<20)
	var plain io.Reader = in
	if magic, err := in.Peek(2); err == nil && bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return 0, fmt.Errorf("unpack it: %w", err)
		}
		plain = unzipped
	}
	limited := &io.LimitedReader{R: plain, N: most}
	what, members := tarball, 0
	r, w := tar.NewReader(limited), tar.NewWriter(to)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			members++
			err = copyMember(w, r, h, &what)
		}
		if limited.N <= 0 {
			return 0, fmt.Errorf("it is larger than %d MiB, which is what this node takes", most>>20)
		}
		if err != nil {
			return 0, fmt.Errorf("the archive is corrupt behind member %d: %w", members, err)
		}
	}
	if members == 0 {
		return 0, errors.New("the archive is corrupt or empty: no tar member in it")
	}
	return what, w.Close()
}

func copyMember(w *tar.Writer, r *tar.Reader, h *tar.Header, what *kind) error {
	var text []byte
	var err error
	switch path.Clean(h.Name) {
	case "index.json":
		text, err = rewritten(r, h, func(index map[string]any) {
			manifests, _ := index["manifests"].([]any)
			for _, m := range manifests {
				if entry, ok := m.(map[string]any); ok {
					delete(entry, "annotations")
				}
			}
			if manifests != nil {
				*what = saved
			}
		})
	case "manifest.json":
		text, err = rewritten(r, h, func(manifest map[string]any) {
			if manifest["Layers"] != nil {
				delete(manifest, "RepoTags")
				*what = saved
			}
		})
	case "repositories":
		text = []byte("{}")
		_, err = io.Copy(io.Discard, r)
	default:
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(w, r)
		return err
	}
	if err != nil {
		return err
	}
	h.Size = int64(len(text))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// rewritten is a member of JSON after a change to its object, or to each of its list. What is no JSON stays as it is.
func rewritten(r io.Reader, h *tar.Header, change func(map[string]any)) ([]byte, error) {
	if h.Size > 4<<20 {
		return nil, fmt.Errorf("%s of %d bytes", h.Name, h.Size)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var one map[string]any
	if json.Unmarshal(text, &one) == nil {
		change(one)
		return json.Marshal(one)
	}
	var many []map[string]any
	if json.Unmarshal(text, &many) == nil {
		for _, m := range many {
			change(m)
		}
		return json.Marshal(many)
	}
	return text, nil
}
