package identity

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>

// The part of libmunge's interface (munge.h, version 2) that is used; so that no header is needed to build.
typedef void *munge_ctx_t;
enum { OPT_SOCKET = 8 };

static struct {
	munge_ctx_t (*create)(void);
	void (*destroy)(munge_ctx_t);
	int (*set)(munge_ctx_t, int, ...);
	const char *(*ctx_strerror)(munge_ctx_t);
	const char *(*strerror)(int);
	int (*encode)(char **, munge_ctx_t, const void *, int);
	int (*decode)(const char *, munge_ctx_t, void **, int *, uid_t *, gid_t *);
} lib;

// load returns NULL, or what the dynamic linker says is missing. It is called under a lock.
static const char *load(void)
{
	void *handle = dlopen("libmunge.so.2", RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return dlerror();
	lib.create = dlsym(handle, "munge_ctx_create");
	lib.destroy = dlsym(handle, "munge_ctx_destroy");
	lib.set = dlsym(handle, "munge_ctx_set");
	lib.ctx_strerror = dlsym(handle, "munge_ctx_strerror");
	lib.strerror = dlsym(handle, "munge_strerror");
	lib.encode = dlsym(handle, "munge_encode");
	lib.decode = dlsym(handle, "munge_decode");
	if (!lib.create || !lib.destroy || !lib.set || !lib.ctx_strerror || !lib.strerror || !lib.encode || !lib.decode)
		return "libmunge.so.2 lacks a symbol of version 2";
	return NULL;
}

// A context serves one call: libmunge's are not safe for concurrent use.
static munge_ctx_t context(const char *socket)
{
	munge_ctx_t ctx = lib.create();
	if (ctx && socket[0] && lib.set(ctx, OPT_SOCKET, socket) != 0) {
		lib.destroy(ctx);
		return NULL;
	}
	return ctx;
}

static int encode(char **cred, munge_ctx_t ctx, const char *payload, int len) { return lib.encode(cred, ctx, payload, len); }

static int decode(const char *cred, munge_ctx_t ctx, void **payload, int *len, uid_t *uid, gid_t *gid)
{
	return lib.decode(cred, ctx, payload, len, uid, gid);
}

static const char *text(munge_ctx_t ctx, int code)
{
	const char *s = ctx ? lib.ctx_strerror(ctx) : NULL;
	return s ? s : lib.strerror(code);
}

static void destroy(munge_ctx_t ctx) { lib.destroy(ctx); }
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"
)

// libmunge's error codes that are told apart.
const (
	mungeSocketError = 6
	mungeBadCred     = 8 // and above: the credential is at fault
)

var load = sync.OnceValue(func() error {
	if missing := C.load(); missing != nil {
		return errors.New(C.GoString(missing))
	}
	return nil
})

// Munge makes and checks credentials through the munged of this host. It is safe for concurrent use.
type Munge struct {
	socket string
}

// NewMunge loads libmunge. An empty socket means libmunge's default. Whether munged answers is seen at the first credential.
func NewMunge(socket string) (*Munge, error) {
	if err := load(); err != nil {
		return nil, fmt.Errorf("load libmunge: %w: install the package libmunge2 (Debian) or munge-libs (RPM), as every Slurm node with AuthType=auth/munge has it", err)
	}
	return &Munge{socket: socket}, nil
}

// Name is "munge".
func (*Munge) Name() string { return "munge" }

// Encode makes a credential of the calling process.
func (m *Munge) Encode(payload string) (string, error) {
	ctx, err := m.context()
	if err != nil {
		return "", err
	}
	defer C.destroy(ctx)
	body := C.CString(payload)
	defer C.free(unsafe.Pointer(body))
	var credential *C.char
	code := C.encode(&credential, ctx, body, C.int(len(payload)))
	defer C.free(unsafe.Pointer(credential))
	if code != 0 {
		return "", m.failure("make munge credential", ctx, int(code))
	}
	return strings.TrimSpace(C.GoString(credential)), nil
}

// Decode checks a credential. It can be decoded once on each host.
func (m *Munge) Decode(credential string) (Caller, string, error) {
	ctx, err := m.context()
	if err != nil {
		return Caller{}, "", err
	}
	defer C.destroy(ctx)
	text := C.CString(credential)
	defer C.free(unsafe.Pointer(text))
	var payload unsafe.Pointer
	var length C.int
	var uid C.uid_t
	var gid C.gid_t
	code := C.decode(text, ctx, &payload, &length, &uid, &gid)
	defer C.free(payload) // set for some errors too
	if code != 0 {
		return Caller{}, "", m.failure("check munge credential", ctx, int(code))
	}
	return Caller{UID: uint32(uid), GID: uint32(gid)}, string(C.GoBytes(payload, length)), nil
}

func (m *Munge) context() (C.munge_ctx_t, error) {
	socket := C.CString(m.socket)
	defer C.free(unsafe.Pointer(socket))
	ctx := C.context(socket)
	if ctx == nil {
		return nil, errors.New("create munge context: out of memory")
	}
	return ctx, nil
}

func (m *Munge) failure(tried string, ctx C.munge_ctx_t, code int) error {
	text := C.GoString(C.text(ctx, C.int(code)))
	switch {
	case code == mungeSocketError:
		return fmt.Errorf("%s: %s: is munged running on this host, and is munge_socket %s its socket? (systemctl status munge)", tried, text, m.where())
	case code >= mungeBadCred:
		return fmt.Errorf("%w: %s: %s (munge key and clock must be the same on all hosts)", ErrCredential, tried, text)
	}
	return fmt.Errorf("%s: %s", tried, text)
}

func (m *Munge) where() string {
	if m.socket == "" {
		return "(default)"
	}
	return fmt.Sprintf("%q", m.socket)
}
