#define _GNU_SOURCE
#include "ask.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

uint64_t gl_realtime_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

int64_t gl_monotonic_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *gl_verdict_text(enum gl_verdict v)
{
	switch (v) {
	case GL_OK:
		return "done";
	case GL_NO_AGENT:
		return "no agent behind the socket";
	case GL_NO_ACK:
		return "agent did not acknowledge in time";
	case GL_NO_DONE:
		return "agent did not finish in time";
	case GL_REFUSED:
		return "agent could not free everything";
	case GL_GARBAGE:
		return "agent gave no sensible answer";
	case GL_STRANGER:
		return "the socket is not the agent's: who listens there neither is root nor owns the folder";
	case GL_EMPTY:
		return "nothing is left, though the agent did not confirm it";
	}
	return "unknown verdict";
}

/* Waits until fd is ready for events; false when the deadline has passed. A signal does not lengthen the wait. */
static bool ready(int fd, short events, int64_t deadline)
{
	for (;;) {
		int64_t left = deadline - gl_monotonic_ms();
		if (left <= 0)
			return false;
		struct pollfd p = {.fd = fd, .events = events};
		int n = poll(&p, 1, (int)left);
		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
	}
}

/* Connects without blocking; a full backlog (EAGAIN) is tried again each millisecond. */
static enum gl_verdict dial(const char *path, int64_t deadline, int *fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strnlen(path, sizeof addr.sun_path - 1));
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return GL_NO_AGENT;
	while (connect(*fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
		if (errno != EAGAIN && errno != EINTR)
			return GL_NO_AGENT;
		if (gl_monotonic_ms() >= deadline)
			return GL_NO_ACK;
		poll(NULL, 0, 1);
	}
	return GL_OK;
}

/* Says whether the agent is behind fd: root, or the owner of the socket's folder, provided that nobody else can put a socket there. The
 * kernel noted who listens; root made the folder. No name service is asked: that could take for ever. */
static bool trusted(int fd, const char *path)
{
	char folder[sizeof((struct sockaddr_un *)NULL)->sun_path];
	struct ucred peer;
	struct stat st;
	socklen_t size = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid())
		return true;
	memcpy(folder, path, strnlen(path, sizeof folder - 1) + 1);
	char *slash = strrchr(folder, '/');
	if (slash == NULL || slash == folder)
		return false;
	*slash = '\0';
	return stat(folder, &st) == 0 && st.st_uid == peer.uid && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static enum gl_verdict send_all(int fd, const uint8_t *buf, size_t len, int64_t deadline)
{
	while (len > 0) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return GL_NO_AGENT;
		if (!ready(fd, POLLOUT, deadline))
			return GL_NO_ACK;
	}
	return GL_OK;
}

struct inbox {
	uint8_t buf[GL_FRAME_MAX];
	size_t len;
};

/* Takes the next frame off the connection. GL_NO_ACK stands for the deadline. f is good until the next call. */
static enum gl_verdict next(int fd, struct inbox *in, struct gl_frame *f, size_t *used, int64_t deadline)
{
	memmove(in->buf, in->buf + *used, in->len - *used);
	in->len -= *used;
	*used = 0;
	for (;;) {
		ssize_t size = gl_frame_decode(in->buf, in->len, f);
		if (size < 0)
			return GL_GARBAGE;
		if (size > 0) {
			*used = (size_t)size;
			return GL_OK;
		}
		if (!ready(fd, POLLIN, deadline))
			return GL_NO_ACK;
		ssize_t n = recv(fd, in->buf + in->len, sizeof in->buf - in->len, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return GL_GARBAGE;
		if (n > 0)
			in->len += (size_t)n;
	}
}

/* How long Done may take before the cgroups are looked at, and again between two looks. */
enum { LOOK_MS = 20 };

/* Like next, but looks now and then whether there is still anything to wait for. */
static enum gl_verdict next_or_empty(int fd, struct inbox *in, struct gl_frame *f, size_t *used, int64_t deadline, gl_empty *empty,
				     const struct gl_settings *s)
{
	for (;;) {
		int64_t look = gl_monotonic_ms() + LOOK_MS;
		if (empty == NULL || look >= deadline)
			return next(fd, in, f, used, deadline);
		enum gl_verdict v = next(fd, in, f, used, look);
		if (v != GL_NO_ACK)
			return v;
		if (empty(s))
			return GL_EMPTY;
	}
}

static enum gl_verdict converse(int fd, enum gl_kind until, int64_t ack, int64_t done, gl_empty *empty, const struct gl_settings *s,
				uint32_t *evicted)
{
	struct inbox in = {.len = 0};
	struct gl_frame f;
	size_t used = 0;
	bool acked = false, quiet = false;
	for (;;) {
		enum gl_verdict v = next_or_empty(fd, &in, &f, &used, acked ? done : ack, quiet ? empty : NULL, s);
		if (v == GL_NO_ACK)
			return acked ? GL_NO_DONE : GL_NO_ACK;
		if (v != GL_OK)
			return v;
		if (f.kind == GL_FAILED)
			return GL_REFUSED;
		if (f.kind != GL_DONE && (f.kind != GL_ACK || acked))
			return GL_GARBAGE;
		acked = true;
		quiet = (f.flags & GL_FLAG_QUIET) != 0;
		if (f.kind == GL_DONE || until == GL_ACK) {
			if (evicted != NULL)
				*evicted = f.evicted;
			return GL_OK;
		}
	}
}

enum gl_verdict gl_ask(const struct gl_settings *s, const struct gl_frame *f, enum gl_kind until, gl_empty *empty, uint32_t *evicted)
{
	uint8_t out[GL_FRAME_MAX];
	int64_t start = gl_monotonic_ms(), ack = start + s->ack_ms, done = start + s->done_ms;
	size_t size = gl_frame_encode(f, out, sizeof out);
	if (size == 0)
		return GL_GARBAGE;
	int fd = -1;
	enum gl_verdict v = dial(s->socket, ack, &fd);
	if (v == GL_OK && !trusted(fd, s->socket))
		v = GL_STRANGER;
	if (v == GL_OK)
		v = send_all(fd, out, size, ack);
	if (v == GL_OK)
		v = converse(fd, until, ack, done, empty, s, evicted);
	if (fd >= 0)
		close(fd);
	return v;
}
